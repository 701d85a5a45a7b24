//! Replaces the processes of one model version without a moment in which none serves, where more
//! than one does.

use std::sync::Arc;
use std::time::Duration;

use super::seat::{Seat, SeatState};
use clipper_config::ContainersConfig;

/// Why, for the log.
const ASKED: &str = "an operator asked for it";

/// Those that serve nobody at once, the others one after the other.
pub(super) async fn restart(seats: Vec<Arc<Seat>>, config: Arc<ContainersConfig>) {
    let (serving, idle): (Vec<_>, Vec<_>) =
        seats.into_iter().partition(|seat| seat.state().connections > 0);
    for seat in idle {
        seat.replace(ASKED);
    }
    let patience = Duration::from_millis(config.connect_timeout_ms);
    for seat in serving {
        let before = seat.state().process;
        seat.replace(ASKED);
        let is_back = |state: &SeatState| {
            state.is_stopping() || (state.process > before && state.connections > 0)
        };
        // One that does not come back must not keep the others from theirs.
        let _ = tokio::time::timeout(patience, seat.watch().wait_for(is_back)).await;
    }
}
