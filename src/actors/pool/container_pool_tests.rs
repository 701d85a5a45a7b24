//! The pool on paused time, with containers on real connections: who comes, goes, is silent, and
//! what the pool's own death and a full mailbox cost.

use super::*;
use crate::actors::paused::{
    Peer, handle, id, on_paused_time, pass, plane, pool, settle, stall_full, until,
};
use crate::actors::supervision_tests::Panic;
use crate::supervision::kept::Kept;
use clipper_scheduling::dispatch::Departure;

/// Stands where a batcher would.
#[derive(Default)]
struct Batcher {
    ready: Vec<ReplicaId>,
    left: Vec<(ReplicaId, Departure)>,
    /// What it has not told to be attached yet.
    holds: Option<Vec<oneshot::Sender<()>>>,
}

impl Actor for Batcher {
    type Context = Context<Self>;
}

impl Handler<FromReplica> for Batcher {
    type Result = ();

    fn handle(&mut self, heard: FromReplica, _: &mut Self::Context) {
        match heard {
            FromReplica::Ready { replica, attached, .. } => {
                self.ready.push(replica);
                match &mut self.holds {
                    Some(held) => held.push(attached),
                    None => drop(attached.send(())),
                }
            }
            FromReplica::Left { replica, cause, .. } => self.left.push((replica, cause)),
            FromReplica::Done { .. } => {}
        }
    }
}

/// Looks into it, or changes it.
#[derive(Message)]
#[rtype(result = "()")]
struct With(Box<dyn FnOnce(&mut Batcher) + Send>);

impl Handler<With> for Batcher {
    type Result = ();

    fn handle(&mut self, with: With, _: &mut Self::Context) {
        (with.0)(self);
    }
}

struct Small {
    plane: Arc<DataPlane>,
    pool: Kept<ContainerPool>,
    list: ContainerList,
    batcher: Addr<Batcher>,
    handle: Arc<ModelHandle>,
}

impl Small {
    async fn start(mailbox_max: usize) -> Self {
        let plane = plane(|config| config.serving.mailbox_max = mailbox_max);
        let list = ContainerList::default();
        let (pool, handle) = (pool(&plane, &list), handle(&plane));
        let batcher = Batcher::default().start();
        handle.set_batcher(Some(batcher.clone().recipient()));
        let small = Self { plane, pool, list, batcher, handle };
        small.register().await;
        small
    }

    async fn register(&self) {
        let changes = vec![ModelChange::Registered(Arc::clone(&self.handle))];
        self.pool.send(ModelsChanged(changes)).await.unwrap();
    }

    async fn peer(&self) -> Peer {
        Peer::connect(&self.plane, &self.pool).await
    }

    fn listed(&self) -> usize {
        self.list.all().len()
    }

    async fn with<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Batcher) -> T + Send + 'static,
    ) -> T {
        let (told, answer) = oneshot::channel();
        let look = Box::new(move |batcher: &mut Batcher| drop(told.send(look(batcher))));
        self.batcher.send(With(look)).await.unwrap();
        answer.await.unwrap()
    }

    async fn causes(&self) -> Vec<(u32, String)> {
        self.with(|batcher| {
            let cause = |(id, cause): &(ReplicaId, Departure)| (id.0, format!("{cause:?}"));
            batcher.left.iter().map(cause).collect()
        })
        .await
    }
}

#[test]
fn a_replica_is_listed_when_its_batcher_has_it_and_forgotten_when_it_leaves() {
    on_paused_time(async {
        let small = Small::start(100).await;
        small.with(|batcher| batcher.holds = Some(Vec::new())).await;
        let peer = small.peer().await;
        settle().await;
        assert_eq!((small.with(|b| b.ready.len()).await, small.listed()), (1, 0));
        let waits = small.pool.send(AwaitAttached(vec![id()]));
        small.with(|batcher| drop(batcher.holds.take())).await;
        waits.await.unwrap();
        until("it is listed", || small.listed() == 1).await;
        drop(peer);
        until("it is forgotten", || small.listed() == 0).await;
        let causes = small.causes().await;
        assert!(matches!(&causes[..], [(0, cause)] if cause.contains("Died")), "{causes:?}");
        let _next = small.peer().await;
        until("the next is listed", || small.listed() == 1).await;
        assert_eq!(small.list.all()[0].replica, ReplicaId(1), "no number is given twice");
    });
}

#[test]
fn a_silent_replica_is_dropped_at_its_limit_and_one_that_speaks_is_not() {
    on_paused_time(async {
        let small = Small::start(100).await;
        let limit = small.plane.rpc.silence_timeout_ms;
        let (_silent, mut speaks) = (small.peer().await, small.peer().await);
        until("both are listed", || small.listed() == 2).await;
        pass(limit / 2).await;
        speaks.beat().await;
        settle().await;
        pass(limit - limit / 2 - 1).await;
        assert_eq!(small.listed(), 2);
        pass(1).await;
        until("one is left", || small.listed() == 1).await;
        assert_eq!(small.list.all()[0].replica, ReplicaId(1));
        let causes = small.causes().await;
        assert!(causes[0].1.contains("nothing heard"), "{causes:?}");
    });
}

#[test]
fn a_retired_versions_replicas_stay_connected_and_serve_again_when_it_is_registered() {
    on_paused_time(async {
        let small = Small::start(100).await;
        let _peer = small.peer().await;
        until("it is listed", || small.listed() == 1).await;
        small.pool.send(ModelsChanged(vec![ModelChange::Retired(id())])).await.unwrap();
        settle().await;
        let causes = small.causes().await;
        assert!(matches!(&causes[..], [(0, cause)] if cause.contains("Orderly")), "{causes:?}");
        assert_eq!(small.listed(), 0);
        small.register().await;
        until("it is listed again", || small.listed() == 1).await;
        assert_eq!(small.with(|batcher| batcher.ready.len()).await, 2);
    });
}

#[test]
fn a_dead_pools_successor_comes_after_its_pause_and_starts_from_nothing() {
    on_paused_time(async {
        let small = Small::start(100).await;
        let mut peer = small.peer().await;
        until("it is listed", || small.listed() == 1).await;
        let before = small.pool.addr();
        assert!(before.send(Panic).await.is_err());
        settle().await;
        assert!(small.causes().await.is_empty(), "the replica serves on");
        pass(99).await;
        assert!(small.pool.addr() == before, "its pause is 100 ms");
        pass(1).await;
        assert!(small.pool.addr() != before && small.listed() == 0);
        // With nothing unanswered a replica leaves at its next word, and comes to the next pool.
        peer.beat().await;
        until("it has left", || small.plane.metrics.open_rpc_connections() == 0).await;
        small.register().await;
        let _again = small.peer().await;
        until("it is listed", || small.listed() == 1).await;
        assert_eq!(small.list.all()[0].replica, ReplicaId(1), "the old number may be in use");
    });
}

/// A replica tells its pool two things while the pool's mailbox is full; the second is its end.
#[test]
fn a_pool_with_a_full_mailbox_hears_of_every_end() {
    on_paused_time(async {
        let room = 2;
        let small = Small::start(room).await;
        let mut peers = Vec::new();
        for _ in 0..8 {
            peers.push(small.peer().await);
        }
        until("all are listed", || small.listed() == 8).await;
        let go_on = stall_full(&small.pool.addr(), room).await;
        for peer in &mut peers {
            peer.state_build(&Build::parse(b"v1").unwrap()).await;
        }
        settle().await;
        drop(peers);
        until("all have ended", || small.plane.metrics.open_rpc_connections() == 0).await;
        assert_eq!(small.listed(), 8, "the pool is stalled");
        drop(go_on);
        // No time passes: nothing is swept.
        until("all are forgotten", || small.listed() == 0).await;
        assert_eq!(small.plane.metrics.rpc_ends(RpcEnd::Closed), 8);
    });
}
