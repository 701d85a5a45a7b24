//! Files of keys are read again when they change.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Access;
use super::listed::Lists;

/// How often files are looked at: a key that is taken out is no good within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Reads the files again and again, if there is one. What cannot be read leaves the keys before it.
pub async fn keep_fresh(lists: Lists, access: Arc<Access>) {
    if !lists.have_files() && !access.takes_tokens() {
        return;
    }
    let mut failing = [String::new(), String::new()];
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (lists, of) = (lists.clone(), Arc::clone(&access));
        // A folder that another machine serves may keep who asks waiting.
        let looked = tokio::task::spawn_blocking(move || {
            let listed = lists.read().map(|keys| of.take_listed(keys));
            let listed = listed.map_err(|why| why.to_string());
            [listed, of.renew_signers().map_err(|why| why.to_string())]
        });
        let Ok(looked) = looked.await else { return };
        let what = ["the listed keys", "the keys of the issuer of tokens"];
        for ((outcome, what), failing) in looked.into_iter().zip(what).zip(&mut failing) {
            match outcome {
                Ok(is_new) => {
                    failing.clear();
                    if is_new {
                        info!("{what} were read again");
                    }
                }
                Err(why) if why != *failing => {
                    warn!("{why}; {what} stay as they were");
                    *failing = why;
                }
                Err(_) => {}
            }
        }
    }
}
