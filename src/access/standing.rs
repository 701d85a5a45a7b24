//! Until when a key stays good: what goes on for long ends with it.

use std::time::Duration;

use clipper_clock as clock;
use clipper_domain::access::{KnownBy, Standing};

use super::{Access, Holder, Refused};

/// A key's time is looked at again after this, whatever it is: clocks are set.
const LOOK_AGAIN_MS: u64 = 60_000;

impl Access {
    /// Until when a key stays good if nobody changes it; Unix milliseconds.
    ///
    /// # Errors
    /// It is no good any more.
    pub fn until(&self, holder: &Holder) -> Result<Option<u64>, Refused> {
        let (key, now_ms) = (&holder.key, clock::unix_millis());
        let no_more = || Refused::NoMore(key.name.clone());
        if holder.known_by == KnownBy::Token {
            let is_taken = self.tokens.as_ref().is_some_and(|t| t.has_signer(&holder.hash));
            let is_over = key.expires_at_ms.is_some_and(|at| at <= now_ms);
            return if is_taken && !is_over { Ok(key.expires_at_ms) } else { Err(no_more()) };
        }
        let keys = self.keys.load();
        let found = keys.find(holder.known_by, &holder.hash, now_ms);
        // Another one may have the name and the secret by now.
        let is_same =
            |found: &Standing<'_>| found.key.role == key.role && found.key.only == key.only;
        let found = found.ok().filter(is_same).ok_or_else(no_more)?;
        Ok(found.until_ms)
    }

    /// Ends when a key is no good any more, and says so: what goes on for long ends with its key.
    pub async fn ended(&self, holder: &Holder) -> Refused {
        let mut changes = self.changes.subscribe();
        loop {
            let until_ms = match self.until(holder) {
                Ok(until_ms) => until_ms,
                Err(refused) => return refused,
            };
            let left = until_ms.map_or(LOOK_AGAIN_MS, |at| at.saturating_sub(clock::unix_millis()));
            let left = Duration::from_millis(left.clamp(1, LOOK_AGAIN_MS));
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}
