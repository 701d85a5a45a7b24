//! What overrides the config file: the flags of `clipper serve` that set its keys, as their
//! declarations say, and the environment.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use clipper_config::document::default_of;
use clipper_config::rule::Rule;
use clipper_config::{Override, schema};

/// The keys that were set by a flag.
#[derive(Debug)]
pub struct KeyFlags(pub Vec<Override>);

impl Args for KeyFlags {
    fn augment_args(command: Command) -> Command {
        schema::flags().fold(command, |command, (path, key, flag)| {
            let default = default_of(&path).unwrap_or_else(|| "none".to_owned());
            let about = key.doc.concat();
            let first = about.trim().split_once(". ").map_or(about.trim(), |(first, _)| first);
            let help = format!(
                "{} [env: {}] [default: {default}]",
                first.trim_end_matches('.'),
                flag.variable()
            );
            let rule = key.rule;
            let checked = move |text: &str| rule.read(text).map(|_| text.to_owned());
            let arg = Arg::new(flag.name)
                .long(flag.name)
                .value_name(flag.value)
                .value_parser(checked)
                .help(help);
            // `--insecure` says yes, `--insecure=false` no.
            command.arg(match rule {
                Rule::Bool => {
                    arg.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
                _ => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KeyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let set = schema::flags().filter_map(|(key, _, flag)| {
            let value = matches.get_one::<String>(flag.name)?.clone();
            Some(Override { flag: format!("--{}", flag.name), key, value })
        });
        Ok(Self(set.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The environment; values that are not UTF-8 get replacement characters and fail their checks.
pub fn env_vars() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    })
}
