//! The containers in the box, run inside the test, against a server played by the test over real
//! sockets.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use clipper_container::noop::NoopModel;
use clipper_container::{BatchModel, ContainerOptions, ModelOutput, run_until};
use clipper_domain::{InputType, ModelId, ModelName, ModelVersion, OnnxEngine};
use clipper_onnx::{EngineInfo, EngineOptions, OnnxError, OnnxModel};
use serde::Deserialize;
use serde_json::Value;
use zeromq::prelude::*;

use crate::support::container_server::{Server, doubles, u32_frame, words};

fn digits(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits").join(file)
}

/// Loads into the engine that needs nothing installed.
fn load(
    path: &Path,
    input_type: Option<InputType>,
    output: Option<&str>,
) -> Result<OnnxModel, OnnxError> {
    let options = EngineOptions { engine: OnnxEngine::Builtin, ..EngineOptions::default() };
    let model = OnnxModel::load(path, input_type, output, &options)?;
    assert_eq!(*model.engine(), EngineInfo::Builtin);
    Ok(model)
}

#[derive(Deserialize)]
struct HeldOut {
    label: i64,
    image: Vec<f64>,
}

fn held_out() -> Vec<HeldOut> {
    serde_json::from_slice(&std::fs::read(digits("held_out.json")).unwrap()).unwrap()
}

fn options(server: &Server) -> ContainerOptions {
    let name = ModelName::parse("digits").unwrap();
    let id = ModelId::new(name, ModelVersion::parse("1").unwrap());
    ContainerOptions::new(id, server.address.parse().unwrap())
}

/// Runs a container beside `script` until the script is done.
async fn beside<T>(
    options: ContainerOptions,
    model: impl BatchModel,
    script: impl Future<Output = T>,
) -> T {
    tokio::select! {
        ended = run_until(options, model, std::future::pending()) => panic!("ended: {ended:?}"),
        result = script => result,
    }
}

#[tokio::test]
async fn held_out_digits_are_recognised_over_the_wire() {
    let mut server = Server::start().await;
    let model = load(&digits("digits.onnx"), Some(InputType::Doubles), None).unwrap();
    let options = options(&server);
    beside(options, model, async {
        let container = server.register().await;
        assert_eq!((container.name.as_str(), container.version.as_str()), ("digits", "1"));
        assert_eq!(container.type_code, "3");

        let images = held_out();
        assert!(images.len() >= 20);
        let mut alone = Vec::new();
        for image in &images {
            alone.extend(server.predict(&container, 3, &[doubles(&image.image)]).await);
        }
        let labels = images.iter().map(|image| image.label.to_string());
        let right = labels.zip(&alone).filter(|(label, output)| label == *output).count();
        println!("{right} of {} held-out digits right", images.len());
        assert!(right * 20 >= images.len() * 19, "{right} of {}", images.len());

        // A batch answers as its inputs do one by one, in their order.
        let inputs: Vec<Bytes> = images.iter().map(|image| doubles(&image.image)).collect();
        for size in [3, 64] {
            let batch: Vec<Bytes> = inputs.iter().cycle().take(size).cloned().collect();
            let expected: Vec<String> = alone.iter().cycle().take(size).cloned().collect();
            assert_eq!(server.predict(&container, 3, &batch).await, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn an_input_of_a_wrong_length_spoils_only_itself() {
    let mut server = Server::start().await;
    let model = load(&digits("digits.onnx"), Some(InputType::Doubles), None).unwrap();
    let options = options(&server);
    beside(options, model, async {
        let container = server.register().await;
        let image = doubles(&held_out()[0].image);
        let good = server.predict(&container, 3, std::slice::from_ref(&image)).await;
        let short = doubles(&[1.0, 2.0]);
        let batch = [image.clone(), short, Bytes::new(), image];
        let outputs = server.predict(&container, 3, &batch).await;
        assert_eq!((&outputs[0], &outputs[3]), (&good[0], &good[0]));
        let error: Value = serde_json::from_str(&outputs[1]).unwrap();
        assert_eq!(error["error"], "expected 64 doubles, got 2 (16 bytes)");
        assert!(outputs[2].contains("got 0"), "{}", outputs[2]);

        // Inputs of another type than the container announced are answered, not guessed at.
        let outputs = server.predict(&container, 2, &[Bytes::from(vec![0; 256])]).await;
        assert!(outputs[0].contains("takes doubles, not floats"), "{}", outputs[0]);
        assert_eq!(server.predict(&container, 3, &[]).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_container_comes_back_after_its_server() {
    let mut server = Server::start().await;
    let address = server.address.clone();
    let model = NoopModel {
        input_type: InputType::Integers,
        output: "ok".to_owned(),
        sleep: Duration::ZERO,
    };
    let options = options(&server);
    beside(options, model, async {
        for _ in 0..3 {
            let container = server.register().await;
            assert_eq!(container.type_code, "1");
            let outputs = server.predict(&container, 1, &[Bytes::from_static(b"1234")]).await;
            assert_eq!(outputs, ["ok"]);
            drop(server.socket.close().await);
            server = Server::start_at(&address).await;
        }
    })
    .await;
}

/// Answers a batch when the test lets it.
struct Held(mpsc::Receiver<&'static str>);

impl BatchModel for Held {
    fn input_type(&self) -> InputType {
        InputType::Doubles
    }

    fn predict(&mut self, inputs: &[Bytes]) -> Vec<ModelOutput> {
        let output = self.0.recv().unwrap();
        vec![Ok(output.to_owned()); inputs.len()]
    }
}

#[tokio::test]
async fn an_answer_is_sent_before_the_next_batch_is_computed() {
    let mut server = Server::start().await;
    let (let_go, held) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let options = options(&server);
    let container = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let until = async { stopped.await.unwrap() };
        runtime.block_on(run_until(options, Held(held), until));
    });
    let replica = server.register().await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(server.ask(&replica, 3, &[doubles(&[1.0])]).await);
    }
    // The last two wait side by side while the first is computed.
    for (message_id, output) in asked.into_iter().zip(["a", "b", "c"]) {
        let_go.send(output).unwrap();
        assert_eq!(server.answer(message_id).await, [output]);
    }
    stop.send(()).unwrap();
    container.await.unwrap();
}

#[tokio::test]
async fn a_silent_server_is_prodded_and_then_given_up() {
    let mut server = Server::start().await;
    let model =
        NoopModel { input_type: InputType::Bytes, output: "ok".to_owned(), sleep: Duration::ZERO };
    let mut options = options(&server);
    options.heartbeat_interval = Duration::from_millis(20);
    options.silence_timeout = Duration::from_millis(500);
    beside(options, model, async {
        let first = server.register().await;
        let mut prods = 0;
        let second = loop {
            let frames = server.receive().await;
            assert_eq!(
                frames.range(1..).cloned().collect::<Vec<_>>(),
                [Bytes::new(), u32_frame(2)]
            );
            if frames[0] != first.identity {
                break frames[0].clone();
            }
            prods += 1;
        };
        assert!(prods > 1, "{prods} heartbeats before it gave up");
        assert_ne!(second, first.identity);
    })
    .await;
}

#[tokio::test]
async fn broken_messages_cost_only_the_connection() {
    let mut server = Server::start().await;
    let model = NoopModel {
        input_type: InputType::Strings,
        output: "ok".to_owned(),
        sleep: Duration::ZERO,
    };
    let options = options(&server);
    beside(options, model, async {
        let lying = words([4, 1 << 40]);
        let broken = [
            vec![Bytes::new(), u32_frame(2), u32_frame(2), u32_frame(0)],
            vec![Bytes::from_static(b"junk")],
            vec![
                Bytes::new(),
                u32_frame(3),
                u32_frame(1),
                u32_frame(1),
                u32_frame(0),
                words([16]),
                lying,
            ],
        ];
        for mut frames in broken {
            let container = server.register().await;
            frames.insert(0, container.identity);
            server.send(frames).await;
        }
        let container = server.register().await;
        assert_eq!(server.predict(&container, 4, &[Bytes::from_static(b"x")]).await, ["ok"]);
    })
    .await;
}

#[test]
fn files_that_are_no_model_are_refused_with_a_text() {
    let load = |path: &Path| load(path, None, None).err().expect("refused");
    let missing = digits("missing.onnx");
    assert!(matches!(load(&missing), OnnxError::Read { .. }));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let whole = std::fs::read(digits("digits.onnx")).unwrap();
    std::fs::write(&file, b"this is no model").unwrap();
    assert!(load(&file).to_string().contains("is not a valid ONNX model"));
    for cut in [0, 1, 100, whole.len() / 2, whole.len() - 100] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        load(&file);
    }
}

#[test]
fn operators_that_cannot_run_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let whole = std::fs::read(digits("digits.onnx")).unwrap();
    // The operator's type, with the field's number and length before it.
    let at = whole.windows(6).position(|part| part == b"\"\x04Relu").unwrap() + 2;
    let mut changed = whole;
    changed[at..at + 4].copy_from_slice(b"Sorc");
    std::fs::write(&file, &changed).unwrap();
    let error = load(&file, None, None).err().expect("refused").to_string();
    assert!(error.contains("needs the operator Sorc"), "{error}");
    assert!(error.contains("pip install onnxruntime"), "{error}");
}

#[test]
fn another_output_is_chosen_by_its_name() {
    let path = digits("digits.onnx");
    let mut model = load(&path, Some(InputType::Doubles), Some("probabilities")).unwrap();
    let image = &held_out()[0];
    let output = model.predict(&[doubles(&image.image)]).remove(0).unwrap();
    let probabilities: Vec<f64> = serde_json::from_str(&output).unwrap();
    assert_eq!(probabilities.len(), 10);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{output}");

    let error = load(&path, None, Some("nonsense")).err().unwrap().to_string();
    assert!(error.contains("label, probabilities"), "{error}");
    assert_eq!(load(&path, None, None).unwrap().input_type(), InputType::Floats);
}
