//! `clipper cert`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::{answer, exit};
use crate::tls::self_signed;
use clipper_rpc::curve::SecretKey;

/// A certificate that is valid for longer is refused by some clients.
const DAYS_MAX: u32 = 3_650;

/// What to make.
#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Make a certificate for trials, signed by itself, and its key.
    SelfSigned(SelfSignedArgs),
    /// Make a pair of keys of CURVE, for the port for containers or for a container.
    #[command(after_help = "\
Writes DIR/curve.key, the secret one, and DIR/curve.pub; files that are there are left alone.")]
    Curve {
        /// The folder.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// `clipper cert self-signed`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Writes DIR/cert.pem and DIR/key.pem; files that are there are left alone. Clients trust cert.pem as
if it were an authority's, and this server alone.

Examples:
  clipper cert self-signed tls
  CLIPPER_TLS__CERT=tls/cert.pem CLIPPER_TLS__KEY=tls/key.pem clipper serve
  clipper admin --url https://localhost:1338 --tls-ca tls/cert.pem apps
  clipper cert self-signed tls --name models.example.com --name 10.0.0.7 --days 90")]
pub(super) struct SelfSignedArgs {
    /// The folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Names and addresses of the server [default: this machine's name, localhost, 127.0.0.1, ::1].
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// How long it is valid, days.
    #[arg(long, default_value_t = 365, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
}

impl CertCommand {
    pub(super) fn run(self) -> ExitCode {
        let SelfSignedArgs { dir, names, days } = match self {
            Self::SelfSigned(args) => args,
            Self::Curve { dir } => return curve(&dir),
        };
        let names = if names.is_empty() { usual_names() } else { names };
        match self_signed::write(&dir, &names, days) {
            Ok(self_signed::Written { cert, key }) => {
                answer(format_args!(
                    "{} for {}, {days} days; its key: {}",
                    cert.display(),
                    names.join(", "),
                    key.display()
                ));
                ExitCode::SUCCESS
            }
            Err(error) => exit(Err(error)),
        }
    }
}

fn curve(dir: &Path) -> ExitCode {
    let secret = SecretKey::from_random(rand::random());
    let files = [
        ("curve.key", format!("{}\n", secret.text()), 0o600),
        ("curve.pub", format!("{}\n", secret.public()), 0o644),
    ];
    match self_signed::put(dir, &files) {
        Ok(()) => {
            answer(format_args!("public key {}", secret.public()));
            ExitCode::SUCCESS
        }
        Err(error) => exit(Err(error)),
    }
}

fn usual_names() -> Vec<String> {
    let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let fixed = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    own.filter(|name| name != "localhost").into_iter().chain(fixed).collect()
}
