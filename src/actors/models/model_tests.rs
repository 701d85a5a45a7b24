//! A model and its batcher on paused time: deaths, the pauses after them, the end of the budget,
//! retirement, and a flood while replicas die.

use futures_util::FutureExt as _;

use super::*;
use crate::actors::paused::{
    Peer, ask, handle, on_paused_time, pass, plane, pool, settle, stall_full, until,
};
use crate::actors::pool::list::ContainerList;
use crate::actors::pool::messages::{ModelChange, ModelsChanged};
use crate::actors::supervision_tests::{BatcherOf, Panic};
use clipper_scheduling::ticket::{Answer, Ticket};

/// A model whose pool knows it.
struct Small {
    plane: Arc<DataPlane>,
    pool: Kept<ContainerPool>,
    list: ContainerList,
    handle: Arc<ModelHandle>,
    model: Addr<Model>,
}

impl Small {
    async fn start(mailbox_max: usize) -> Self {
        let plane = plane(|config| config.serving.mailbox_max = mailbox_max);
        let list = ContainerList::default();
        let (pool, handle) = (pool(&plane, &list), handle(&plane));
        let changes = vec![ModelChange::Registered(Arc::clone(&handle))];
        pool.send(ModelsChanged(changes)).await.unwrap();
        let lifeline = Lifeline::default();
        let model =
            Model::new(Arc::clone(&plane), Arc::clone(&handle), pool.clone(), lifeline).start();
        until("its batcher takes queries", || handle.batcher().is_some()).await;
        Self { plane, pool, list, handle, model }
    }

    async fn batcher(&self) -> Addr<Batcher> {
        self.model.send(BatcherOf).await.unwrap().unwrap()
    }

    async fn kill_batcher(&self) {
        let batcher = self.batcher().await;
        assert!(batcher.send(Panic).await.is_err());
        until("it is gone", || !batcher.connected() && self.handle.batcher().is_none()).await;
    }

    fn ask(&self, input: f64) -> Ticket {
        ask(&self.plane, &self.handle, input)
    }
}

fn is_answered(ticket: &Ticket) -> bool {
    ticket.filled().now_or_never().is_some()
}

#[test]
fn a_dead_batchers_successor_comes_after_its_pause_and_has_its_queue_and_replicas() {
    on_paused_time(async {
        let small = Small::start(100).await;
        let asked = small.ask(1.0);
        until("it waits", || small.handle.load().waiting == 1).await;
        small.kill_batcher().await;
        pass(99).await;
        assert!(small.handle.batcher().is_none(), "its pause is 100 ms");
        pass(1).await;
        assert!(small.handle.batcher().is_some());
        let inputs = Peer::connect(&small.plane, &small.pool).await.serve("7");
        until("it is answered", || is_answered(&asked)).await;
        let answers = asked.close().unwrap().answers;
        assert!(matches!(&answers[..], [Answer::Output(output)] if output.json() == b"7"));
        small.kill_batcher().await;
        assert_eq!(small.handle.load().replicas, 0, "nobody serves without a batcher");
        pass(200).await;
        until("the replica is attached again", || small.handle.load().replicas == 1).await;
        let asked = small.ask(2.0);
        until("it is answered", || is_answered(&asked)).await;
        assert_eq!(inputs.borrow().len(), 2, "nothing was asked twice");
    });
}

#[test]
fn a_batcher_that_dies_too_often_is_given_up_and_its_queries_hear_it() {
    on_paused_time(async {
        let small = Small::start(100).await;
        let asked = small.ask(1.0);
        until("it waits", || small.handle.load().waiting == 1).await;
        for pause in [100, 200, 400] {
            small.kill_batcher().await;
            assert!(!is_answered(&asked), "its successor may answer it");
            pass(pause).await;
            assert!(small.handle.batcher().is_some());
        }
        small.kill_batcher().await;
        until("it is answered", || is_answered(&asked)).await;
        assert_eq!(asked.close().unwrap().answers[..], [Answer::Default(DefaultReason::NoReplica)]);
        pass(3_600_000).await;
        assert!(small.handle.batcher().is_none());
        let late = small.ask(2.0);
        assert_eq!(
            late.close().unwrap().answers[..],
            [Answer::Default(DefaultReason::NoReplica)],
            "refused at once"
        );
    });
}

#[test]
fn a_retired_models_queries_are_answered_and_nothing_of_it_comes_back() {
    on_paused_time(async {
        let small = Small::start(100).await;
        let asked = small.ask(1.0);
        until("it waits", || small.handle.load().waiting == 1).await;
        let batcher = small.batcher().await;
        small.model.send(RetireModel).await.unwrap();
        until("it is answered", || is_answered(&asked)).await;
        let why = DefaultReason::Failed("Model m:1 was deleted before it answered".into());
        assert_eq!(asked.close().unwrap().answers[..], [Answer::Default(why)]);
        pass(3_600_000).await;
        assert!(!batcher.connected() && !small.model.connected());
        assert!(small.handle.batcher().is_none());
    });
}

/// A model with a replica that does not answer the query that it has.
async fn with_a_query_under_way(room: usize) -> (Small, Peer, Ticket) {
    let small = Small::start(room).await;
    let mut peer = Peer::connect(&small.plane, &small.pool).await;
    until("it is attached", || small.handle.replicas() == 1).await;
    let asked = small.ask(1.0);
    assert_eq!(peer.batch().await.unwrap().1.len(), 1);
    (small, peer, asked)
}

#[test]
fn what_replicas_have_is_answered_when_their_model_is_retired_whoever_hears_of_it_first() {
    on_paused_time(async {
        let room = 2;
        for pool_is_first in [true, false] {
            let (small, _peer, asked) = with_a_query_under_way(room).await;
            let go_on = stall_full(&small.batcher().await, room).await;
            let tell_pool = async || {
                let retired = ModelChange::Retired(small.handle.spec.id.clone());
                small.pool.send(ModelsChanged(vec![retired])).await.unwrap();
                settle().await;
            };
            if pool_is_first {
                tell_pool().await;
            }
            small.model.send(RetireModel).await.unwrap();
            settle().await;
            if !pool_is_first {
                tell_pool().await;
            }
            drop(go_on);
            until("it is answered", || is_answered(&asked)).await;
            let answers = asked.close().unwrap().answers;
            assert!(matches!(&answers[..], [Answer::Default(_)]), "{answers:?}");
        }
    });
}

#[test]
fn what_a_replica_gives_back_to_a_batcher_that_dies_is_answered() {
    on_paused_time(async {
        let room = 2;
        let (small, peer, asked) = with_a_query_under_way(room).await;
        let batcher = small.batcher().await;
        let go_on = stall_full(&batcher, room).await;
        batcher.clone().try_send(Panic).unwrap();
        drop(peer);
        settle().await;
        drop(go_on);
        until("it is answered", || is_answered(&asked)).await;
        let answers = asked.close().unwrap().answers;
        let [Answer::Default(DefaultReason::Failed(why))] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert!(why.contains("the connection was closed"), "{why}");
    });
}

/// Replicas come and die while their batcher does not get to its mailbox, which is full: first with
/// nothing to do, where only the word of their departure tells of it, then under a flood.
#[test]
fn flooded_while_its_replicas_die_a_model_answers_each_query_once_and_keeps_no_dead_replica() {
    on_paused_time(async {
        let room = 2;
        let small = Small::start(room).await;
        let die_while_stalled = async |mut doomed: Vec<Peer>, queries: std::ops::Range<u32>| {
            let go_on = stall_full(&small.batcher().await, room).await;
            for _ in 0..8 {
                doomed.push(Peer::connect(&small.plane, &small.pool).await);
            }
            settle().await;
            drop(doomed);
            let tickets: Vec<Ticket> = queries.map(|n| small.ask(f64::from(n))).collect();
            let open = || small.plane.metrics.open_rpc_connections();
            until("all their actors have ended", || open() == 0).await;
            drop(go_on);
            settle().await;
            assert_eq!(small.handle.replicas(), 0, "every replica gone that is gone");
            assert!(small.list.all().is_empty());
            tickets
        };
        die_while_stalled(Vec::new(), 0..0).await;

        let early = Peer::connect(&small.plane, &small.pool).await;
        until("it is attached", || small.handle.replicas() == 1).await;
        let mut all: Vec<Ticket> = (0..100).map(|n| small.ask(f64::from(n))).collect();
        until("the first batch is under way", || small.handle.load().waiting == 99).await;
        all.extend(die_while_stalled(vec![early], 100..1_100).await);

        let inputs = Peer::connect(&small.plane, &small.pool).await.serve("7");
        until("all are answered", || all.iter().all(is_answered)).await;
        let outputs = all.into_iter().flat_map(|ticket| ticket.close().unwrap().answers);
        let outputs = outputs.filter(|answer| matches!(answer, Answer::Output(_))).count();
        assert_eq!((outputs, inputs.borrow().len()), (1_100, 1_100), "each once");
        assert_eq!(small.handle.replicas(), 1);
    });
}
