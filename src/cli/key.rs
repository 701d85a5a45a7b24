//! `clipper key ...`: who may do what.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::limits::LimitArgs;
use super::remote::{Outcome, ServerArgs, Shown, ended, understood};
use super::value::Expected;
use clipper_domain::Role;
use clipper_domain::admin::{KeyDescription, NewSecret};
use clipper_tools::admin::{Client, table};

/// `clipper key`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
From the first key on, which has to be one of the role admin, every request needs a key of a role
that may do it. A key is shown once, when it is made; the server keeps only its SHA-256.

  predict    ask applications, give feedback
  observe    read metrics and metadata
  operate    observe, and change applications, models, links and rollouts
  admin      everything, also start programs and manage keys
  container  serve a model

Examples:
  clipper key add root --role admin
  export CLIPPER_KEY=clk_...
  clipper key add team-a --role predict --app 'team-a-*' --expires 90d
  clipper key limit team-a --rate 100 --burst 200 --concurrent 20 --body-bytes 1MiB
  clipper key add vision --role container --only 'vision-*'
  clipper key add encoder --role container --only encoder --curve \"$(cat curve.pub)\"
  clipper key add eye --role observe --certificate dns:prometheus.example
  clipper key rotate team-a --keep-old 1d
  clipper key revoke team-a")]
pub(super) struct KeyArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Make a key and print it, this once.
    Add {
        /// What the journal and refusals call it.
        name: String,
        /// What its holder may do.
        #[arg(long, value_parser = role)]
        role: Role,
        /// The applications, or for a container the models, that it is for; * stands for any part
        /// of a name.
        #[arg(long, visible_alias = "only", value_name = "PATTERN")]
        app: Option<String>,
        /// How long it is good: 12h, 90d; without, until it is revoked.
        #[arg(long, value_name = "TIME", value_parser = days)]
        expires: Option<Duration>,
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        identity: IdentityArgs,
    },
    /// Limit how much the holder of a key may ask for: these limits in place of those before,
    /// without any none.
    Limit {
        /// Which.
        name: String,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Print all keys, without their secrets.
    List,
    /// End a key, at once.
    Revoke {
        /// Which.
        name: String,
    },
    /// Give a key another secret and print it, this once.
    Rotate {
        /// Which.
        name: String,
        /// How long the secret before is good, too: 1h, 2d; without, no longer.
        #[arg(long, value_name = "TIME", value_parser = days)]
        keep_old: Option<Duration>,
        #[command(flatten)]
        identity: IdentityArgs,
    },
}

/// What stands in the place of a secret.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct IdentityArgs {
    /// A container's public key of CURVE in place of a secret (clipper cert curve).
    #[arg(long, value_name = "Z85", allow_hyphen_values = true)]
    curve: Option<String>,
    /// A client's certificate in place of a secret: its SHA-256 (openssl x509 -noout -fingerprint
    /// -sha256), or a name in it, dns:NAME, uri:NAME or cn:NAME.
    #[arg(long, value_name = "CERTIFICATE")]
    certificate: Option<String>,
}

impl IdentityArgs {
    fn put(&self, body: &mut Value) {
        for (member, text) in [("curve", &self.curve), ("certificate", &self.certificate)] {
            if let Some(text) = text {
                body[member] = json!(text);
            }
        }
    }
}

fn role(text: &str) -> Result<Role, Expected> {
    let names = Role::ALL.map(Role::name).join(", ");
    Role::parse(text).ok_or_else(|| Expected::new(format!("one of {names}")))
}

/// A time from a second on, also in days.
fn days(text: &str) -> Result<Duration, Expected> {
    const DAY_S: f64 = 86_400.0;
    let days = text.strip_suffix('d').and_then(|days| days.parse::<f64>().ok());
    let time = match days {
        Some(days) => Duration::try_from_secs_f64(days * DAY_S).ok(),
        None => super::value::time_with_unit(text).ok(),
    };
    time.filter(|time| *time >= Duration::from_secs(1))
        .ok_or_else(|| Expected::new("a time from 1s on, such as 12h or 90d"))
}

impl KeyArgs {
    pub(super) fn run(&self) -> ExitCode {
        ended(self.server.client().and_then(|client| self.once(&client)), self.json)
    }

    fn once(&self, client: &Client) -> Outcome {
        match &self.verb {
            KeyVerb::Add { name, role, app, expires, limits, identity } => {
                let mut body = json!({"name": name, "role": role});
                if let Some(app) = app {
                    body["app"] = json!(app);
                }
                if let Some(expires) = expires {
                    body["expires_s"] = json!(expires.as_secs());
                }
                if !limits.is_none() {
                    body["limits"] = limits.body();
                }
                identity.put(&mut body);
                secret(client, "add_key", &body)
            }
            KeyVerb::Limit { name, limits } => {
                let body = json!({"name": name, "limits": limits.body()});
                Ok(Shown::done(client.post("limit_key", &body)?))
            }
            KeyVerb::Rotate { name, keep_old, identity } => {
                let mut body = json!({"name": name});
                if let Some(keep_old) = keep_old {
                    body["keep_old_s"] = json!(keep_old.as_secs());
                }
                identity.put(&mut body);
                secret(client, "rotate_key", &body)
            }
            KeyVerb::Revoke { name } => {
                Ok(Shown::done(client.post("revoke_key", &json!({"name": name}))?))
            }
            KeyVerb::List => {
                let json = client.ask("get_all_keys", &json!({"verbose": true}))?;
                let keys: Vec<KeyDescription> = understood(client, "get_all_keys", &json)?;
                Ok(Shown { text: table::keys(&keys), json })
            }
        }
    }
}

const FOR_PEOPLE: &str = "Send it as \"Authorization: Bearer KEY\"; commands of clipper take it \
                          from CLIPPER_KEY or --key.";
const FOR_CONTAINERS: &str = "Containers take the name from CLIPPER_RPC_KEY_NAME and this from \
                              CLIPPER_RPC_KEY.";

fn secret(client: &Client, endpoint: &str, body: &Value) -> Outcome {
    let json = client.ask(endpoint, body)?;
    let made: NewSecret = understood(client, endpoint, &json)?;
    let NewSecret { key, secret } = made;
    let (name, role) = (&key.name, key.role);
    let text = match secret {
        None => format!("Key '{name}' of the role {role} is known by its {}.", key.known_by.name()),
        Some(secret) => format!(
            "Key '{name}' of the role {role} is shown this once:\n\n{secret}\n\n{}",
            if role == Role::Container { FOR_CONTAINERS } else { FOR_PEOPLE }
        ),
    };
    Ok(Shown { text, json })
}
