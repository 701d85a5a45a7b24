//! The server's side of the model RPC, played by a test.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use zeromq::prelude::*;
use zeromq::{RouterSocket, ZmqMessage};

use super::ports::free_addr;

/// Far above what any step takes; only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn doubles(values: &[f64]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub fn u32_frame(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

pub fn words(words: impl IntoIterator<Item = u64>) -> Bytes {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The server's side of the protocol, written from docs/container-protocol.md and not from the
/// library.
pub struct Server {
    pub socket: RouterSocket,
    pub address: String,
    next_message_id: u32,
}

/// What a container said when it registered.
pub struct Registered {
    pub identity: Bytes,
    pub name: String,
    pub version: String,
    pub type_code: String,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_at(&format!("tcp://{}", free_addr())).await
    }

    /// Binds `address`, waiting for it where an earlier socket still holds it.
    pub async fn start_at(address: &str) -> Self {
        let bind = async {
            loop {
                let mut socket = RouterSocket::new();
                if let Ok(endpoint) = socket.bind(address).await {
                    break Self { socket, address: endpoint.to_string(), next_message_id: 0 };
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, bind).await.expect("the port is free")
    }

    pub async fn receive(&mut self) -> VecDeque<Bytes> {
        let message = timeout(PATIENCE, self.socket.recv()).await.expect("a container speaks");
        message.unwrap().into_vecdeque()
    }

    pub async fn send(&mut self, frames: Vec<Bytes>) {
        self.socket.send(ZmqMessage::try_from(frames).unwrap()).await.unwrap();
    }

    /// Waits for a heartbeat, asks who that is, and reads the new-container message.
    pub async fn register(&mut self) -> Registered {
        let mut heartbeat = self.receive().await;
        let identity = heartbeat.pop_front().unwrap();
        assert_eq!(heartbeat, [Bytes::new(), u32_frame(2)]);
        let question =
            vec![identity.clone(), Bytes::new(), u32_frame(3), u32_frame(2), u32_frame(1)];
        self.send(question).await;
        let frames = self.receive().await;
        assert_eq!(frames.len(), 7);
        assert_eq!(frames[0], identity);
        assert_eq!(frames[1], Bytes::new());
        assert_eq!((&frames[2], &frames[6][..4]), (&u32_frame(0), &u32_frame(3)[..]));
        let text = |at: usize| String::from_utf8(frames[at].to_vec()).unwrap();
        Registered { identity, name: text(3), version: text(4), type_code: text(5) }
    }

    /// Sends one batch and reads its answer, with every length checked.
    pub async fn predict(
        &mut self,
        to: &Registered,
        type_code: u64,
        inputs: &[Bytes],
    ) -> Vec<String> {
        let message_id = self.ask(to, type_code, inputs).await;
        self.answer(message_id).await
    }

    /// Sends one batch; its message id.
    pub async fn ask(&mut self, to: &Registered, type_code: u64, inputs: &[Bytes]) -> Bytes {
        self.next_message_id += 1;
        let message_id = u32_frame(self.next_message_id);
        let lengths = inputs.iter().map(|input| input.len() as u64);
        let header = words([type_code, inputs.len() as u64].into_iter().chain(lengths));
        let mut frames = vec![
            to.identity.clone(),
            Bytes::new(),
            u32_frame(3),
            u32_frame(1),
            message_id.clone(),
            u32_frame(0),
            words([header.len() as u64]),
            header,
        ];
        frames.extend_from_slice(inputs);
        self.send(frames).await;
        message_id
    }

    /// Reads the answer to the batch with this message id.
    pub async fn answer(&mut self, message_id: Bytes) -> Vec<String> {
        let mut answer = self.receive().await;
        while answer.len() == 3 {
            answer = self.receive().await; // a heartbeat
        }
        let outputs: Vec<Bytes> = answer.drain(6..).collect();
        let lengths = outputs.iter().map(|output| output.len() as u64);
        let header = words([outputs.len() as u64].into_iter().chain(lengths));
        let head = [Bytes::new(), u32_frame(1), message_id, words([header.len() as u64]), header];
        assert_eq!(answer.range(1..).cloned().collect::<Vec<_>>(), head);
        outputs.iter().map(|output| String::from_utf8(output.to_vec()).unwrap()).collect()
    }
}
