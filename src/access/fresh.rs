//! Files of keys are read again when they change.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Access;
use super::listed::Lists;

/// How often files are looked at: a key that is taken out is no good within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Reads the files again and again, and asks the issuer of tokens, if there are any. What cannot be
/// read leaves the keys before it.
pub async fn keep_fresh(lists: Lists, access: Arc<Access>) {
    let (have_files, takes_tokens) = (lists.have_files(), access.takes_tokens());
    let of_files = Arc::clone(&access);
    let files = looked_at("the listed keys", move || Ok(Some(of_files.take_listed(lists.read()?))));
    // Beside it: an issuer may take long.
    let signers =
        looked_at("the keys of the issuer of tokens", move || Ok(access.renew_signers()?));
    tokio::join!(
        async {
            if have_files {
                files.await;
            }
        },
        async {
            if takes_tokens {
                signers.await;
            }
        }
    );
}

/// Whether there are others; `None`: it was not time to look.
type Looked = Result<Option<bool>, Box<dyn std::error::Error + Send + Sync>>;

async fn looked_at(what: &'static str, look: impl Fn() -> Looked + Send + Sync + 'static) {
    let look = Arc::new(look);
    let mut failing = String::new();
    loop {
        // A folder that another machine serves may keep who asks waiting.
        let looking = Arc::clone(&look);
        let Ok(outcome) = tokio::task::spawn_blocking(move || looking()).await else { return };
        match outcome {
            Ok(None) => {}
            Ok(Some(is_new)) => {
                failing.clear();
                if is_new {
                    info!("{what} were read again");
                }
            }
            Err(why) => {
                let why = why.to_string();
                if why != failing {
                    warn!("{why}; {what} stay as they were");
                    failing = why;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
