//! Makes the metadata what the config file says, at the start and when it is read again.
//!
//! Idempotent: where everything is there, nothing changes. What was edited in the file since it was
//! read last is changed; what an operator has changed meanwhile stays, which is said in the log, as
//! is what cannot be. The change is planned and made as that of `clipper apply`.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::declare::merge::{Remembered, merge};
use crate::declare::{Declaration, InvalidEntry};
use crate::store::event::Origin;
use crate::store::plan::{STEPS_AT_ONCE, plan};
use crate::store::soft_file::SoftFile;
use crate::store::{CatalogView, ChangeError, SharedWriter};
use clipper_config::{Config, Lists};
use clipper_domain::difference::Became;
use clipper_domain::{Command, CommandError, Plan, Step};

/// Between two attempts while Redis is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Plans in a row that others may be faster than.
const TRIES: usize = 100;

/// In the data directory: what the config file said when it was read last.
const REMEMBERED: &str = "config-declared.json";

/// Why something could not be registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// A value that the configuration's own checks should have refused.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
    /// The store takes no changes now.
    #[error("{0}")]
    Store(String),
}

/// Where changes are asked for, and what is there.
#[derive(Clone)]
pub struct Bootstrap {
    writer: SharedWriter,
    view: CatalogView,
    file: SoftFile,
}

impl Bootstrap {
    /// Sends what is missing. What a store that is away for a while cannot take is sent when it is
    /// back.
    ///
    /// # Errors
    /// A value that the configuration's own checks should have refused, or a store that fails.
    pub async fn run_or_later(
        config: &Config,
        writer: &SharedWriter,
        view: CatalogView,
    ) -> Result<Self, BootstrapError> {
        let file = SoftFile::new(&config.data_dir, REMEMBERED);
        let bootstrap = Self { writer: Arc::clone(writer), view, file };
        let declaration = declared(config)?;
        match bootstrap.run(&declaration).await {
            Err(reason) if bootstrap.writer.may_be_away() => {
                actix::spawn(bootstrap.clone().later(declaration, reason));
            }
            result => result?,
        }
        Ok(bootstrap)
    }

    /// The config file was read again.
    ///
    /// # Errors
    /// As [`Self::run_or_later`].
    pub async fn run_again(&self, config: &Config) -> Result<(), BootstrapError> {
        self.run(&declared(config)?).await
    }

    async fn later(self, declaration: Declaration, mut reason: BootstrapError) {
        warn!(%reason, "the config file's applications and models are registered later");
        loop {
            tokio::time::sleep(PAUSE).await;
            match self.run(&declaration).await {
                Ok(()) => return,
                Err(again) if again == reason => {}
                Err(other) => {
                    warn!(reason = %other, "not yet registered from the config file");
                    reason = other;
                }
            }
        }
    }

    async fn run(&self, declaration: &Declaration) -> Result<(), BootstrapError> {
        let remembered = self.remembered();
        // Told once, whatever others do meanwhile.
        let mut is_told = false;
        let (mut tries, mut has_asked) = (0, false);
        loop {
            let whole = self.planned(declaration, remembered.as_ref(), &mut is_told);
            // Where the store may be away, it has to say that nothing is missing.
            if whole.steps.is_empty() && (has_asked || !self.writer.may_be_away()) {
                break;
            }
            let steps: Vec<Step> = whole.steps.into_iter().take(STEPS_AT_ONCE).collect();
            let part = Plan { base: whole.base, steps: steps.clone(), refused: Vec::new() };
            let change = Command::Apply(Box::new(part));
            match self.writer.execute(change, Origin::Bootstrap.into()).await {
                Ok(()) => {
                    steps.iter().for_each(told);
                    has_asked = true;
                }
                Err(ChangeError::Refused(CommandError::PlanIsOld { .. })) if tries < TRIES => {
                    tries += 1;
                }
                // The rules have said yes: the state is another by now.
                Err(ChangeError::Refused(_)) if tries < TRIES => tries += 1,
                Err(ChangeError::Refused(why)) => {
                    return Err(BootstrapError::Store(why.to_string()));
                }
                Err(ChangeError::Unavailable { reason }) => {
                    return Err(BootstrapError::Store(reason));
                }
            }
        }
        self.remember(declaration, remembered.as_ref());
        Ok(())
    }

    /// What is left to do; what cannot be done is said.
    fn planned(
        &self,
        declaration: &Declaration,
        remembered: Option<&Remembered>,
        is_told: &mut bool,
    ) -> Plan {
        let (seq, current) = self.view.copy();
        let (merged, stays) = merge(declaration, remembered, &current);
        let (wanted, faults) = merged.wanted(&current, false);
        let made = plan(seq, &current, &wanted);
        if !std::mem::replace(is_told, true) {
            for stays in stays {
                let (what, name, why) = (stays.what, stays.name, stays.why);
                warn!(
                    what,
                    name,
                    "it stays as it is, though the config file says something else: \
                       {why}"
                );
            }
            for fault in faults {
                warn!("not registered from the config file: {fault}");
            }
            for refused in &made.refused {
                let change = refused.step.command.to_string();
                warn!(change, "not registered from the config file: {}", refused.why);
            }
        }
        made
    }

    fn remembered(&self) -> Option<Remembered> {
        self.file.read().unwrap_or_else(|error| {
            let file = self.file.path().display();
            warn!(%file, %error, "what the config file said at the last start cannot be read");
            None
        })
    }

    fn remember(&self, declaration: &Declaration, before: Option<&Remembered>) {
        let now = Remembered::of(declaration);
        if before == Some(&now) || (before.is_none() && now == Remembered::default()) {
            return;
        }
        if let Err(error) = self.file.write(&now) {
            let file = self.file.path().display();
            warn!(%file, %error, "what the config file says cannot be remembered: a change of it \
                   will not be noticed");
        }
    }
}

/// Without containers: those of the file are this server's alone, no part of the metadata.
fn declared(config: &Config) -> Result<Declaration, InvalidEntry> {
    let (applications, models) = (config.applications.clone(), config.models.clone());
    Declaration::read(&Lists { applications, models }, false)
}

fn told(step: &Step) {
    let change = step.command.to_string();
    match step.about.kind {
        Became::Added => info!(change, "registered from the config file"),
        Became::Changed | Became::Removed => info!(change, "changed as the config file says"),
    }
}
