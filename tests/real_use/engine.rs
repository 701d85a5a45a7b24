//! ONNX models answer what their reference engine answers.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bytes::Bytes;
use clipper_container::{BatchModel as _, ModelOutput};
use clipper_domain::{InputType, OnnxEngine};
use clipper_onnx::{EngineInfo, EngineOptions, OnnxError, OnnxModel};
use serde::Deserialize;
use serde_json::Value;

use crate::e2e::support::server::Server as Clipper;
use crate::support::container_server::Server;

/// The Python that has what `scripts/test-requirements.txt` names.
fn python() -> OsString {
    std::env::var_os("CLIPPER_TEST_PYTHON")
        .expect("set CLIPPER_TEST_PYTHON, as scripts/test.sh does")
}

/// One output of one model, and what ONNX Runtime gives for each row alone.
#[derive(Deserialize)]
struct Case {
    file: String,
    output: String,
    rows: Vec<Vec<f32>>,
    expected: Vec<Value>,
}

impl Case {
    fn inputs(&self) -> Vec<Bytes> {
        let bytes = |row: &Vec<f32>| row.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.rows.iter().map(bytes).collect()
    }

    fn load(&self, options: &EngineOptions) -> Result<OnnxModel, OnnxError> {
        let path = exports().0.join(&self.file);
        OnnxModel::load(&path, Some(InputType::Floats), Some(&self.output), options)
    }

    /// Compares row by row.
    fn check(&self, answers: &[ModelOutput]) {
        assert_eq!(answers.len(), self.expected.len());
        for (row, (answer, expected)) in answers.iter().zip(&self.expected).enumerate() {
            let what = format!("{} {} row {row}", self.file, self.output);
            let answer = answer.as_ref().unwrap_or_else(|why| panic!("{what}: {why}"));
            let answer: Value = serde_json::from_str(answer).unwrap();
            assert!(same(&answer, expected), "{what}: {answer}, ONNX Runtime: {expected}");
        }
    }
}

/// Equal but for the last digits of numbers.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same_value = |(key, one)| other.get(key).is_some_and(|other| same(one, other));
            one.len() == other.len() && one.iter().all(same_value)
        }
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= 1e-4 * one.abs().max(other.abs()).max(0.1)
        }
        _ => one == other,
    }
}

/// The folder of the models, made once for all tests, and what is in it.
fn exports() -> &'static (PathBuf, Vec<Case>) {
    static EXPORTS: OnceLock<(PathBuf, Vec<Case>)> = OnceLock::new();
    EXPORTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx_models.py");
        let made = Command::new(python()).arg(script).arg(&folder).output().unwrap();
        let says = String::from_utf8_lossy(&made.stderr);
        assert!(
            made.status.success(),
            "CLIPPER_TEST_PYTHON has to have what scripts/test-requirements.txt names: {says}"
        );
        let cases = std::fs::read(folder.join("expected.json")).unwrap();
        (folder, serde_json::from_slice(&cases).unwrap())
    })
}

/// The environment of the Python that has the `onnxruntime` wheel.
fn virtual_env() -> PathBuf {
    PathBuf::from(python()).parent().and_then(Path::parent).unwrap().to_owned()
}

/// The library in the wheel.
fn library() -> PathBuf {
    let print = "import glob, onnxruntime, os; folder = os.path.dirname(onnxruntime.__file__); \
                 print(glob.glob(folder + '/capi/libonnxruntime.so*')[0])";
    let output = Command::new(python()).args(["-c", print]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn ort() -> EngineOptions {
    EngineOptions { engine: OnnxEngine::Ort, library: Some(library()), threads: Some(1) }
}

fn builtin() -> EngineOptions {
    EngineOptions { engine: OnnxEngine::Builtin, library: None, threads: Some(1) }
}

/// All rows, in batches whose sizes differ.
fn in_batches(model: &mut OnnxModel, inputs: &[Bytes]) -> Vec<ModelOutput> {
    let (first, rest) = inputs.split_at(inputs.len().min(3));
    let mut answers = model.predict(first);
    answers.extend(rest.chunks(64).flat_map(|batch| model.predict(batch)));
    answers
}

#[tokio::test]
async fn line_b_a_container_gives_the_labels_of_onnx_runtime() {
    let (folder, cases) = exports();
    let files = ["four_rows.onnx", "tree_2.onnx", "forest_2.onnx", "extra_trees_2.onnx"];
    let files = [&files[..], &["lightgbm_2.onnx"]].concat();
    for case in
        cases.iter().filter(|case| files.contains(&&*case.file) && case.output.contains("label"))
    {
        let mut server = Server::start().await;
        let mut container = tokio::process::Command::new(crate::binary())
            .args(["container", "onnx", "--name=m", "--version=1"])
            .arg(format!("--connect={}", server.address))
            .arg(format!("--model={}", folder.join(&case.file).display()))
            .arg(format!("--output={}", case.output))
            .env("VIRTUAL_ENV", virtual_env())
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let replica = server.register().await;
        let mut answers = Vec::new();
        for batch in case.inputs().chunks(50) {
            answers.extend(server.predict(&replica, 2, batch).await.into_iter().map(Ok));
        }
        case.check(&answers);
        container.kill().await.unwrap();
    }
}

#[test]
fn line_b_every_export_answers_as_onnx_runtime_does() {
    let options = ort();
    for case in &exports().1 {
        let mut model = case.load(&options).unwrap();
        assert!(
            matches!(model.engine(), EngineInfo::Ort { version, .. } if version.starts_with("1."))
        );
        case.check(&in_batches(&mut model, &case.inputs()));
    }
}

#[test]
fn line_b_the_builtin_engine_is_right_or_refuses() {
    let mut served = BTreeSet::new();
    for case in &exports().1 {
        match case.load(&builtin()) {
            Ok(mut model) => {
                case.check(&in_batches(&mut model, &case.inputs()));
                served.insert(case.file.as_str());
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("pip install onnxruntime"), "{}: {error}", case.file);
            }
        }
    }
    let expected = [
        "net_across_rows.onnx",
        "net_convolution.onnx",
        "net_dense.onnx",
        "net_dense_11.onnx",
        "net_fixed_batch.onnx",
        "net_flags.onnx",
        "net_one_row.onnx",
        "net_ties.onnx",
        "net_vector.onnx",
        "network_2.onnx",
        "network_3.onnx",
    ];
    assert_eq!(served, BTreeSet::from(expected));
}

#[test]
fn line_b_a_refusal_names_the_operator_and_the_way_out() {
    let cases = &exports().1;
    for (file, operator) in [
        ("tree_2.onnx", "TreeEnsembleClassifier (ai.onnx.ml)"),
        ("lightgbm_2.onnx", "TreeEnsembleClassifier (ai.onnx.ml)"),
        ("svc_3.onnx", "SVMClassifier (ai.onnx.ml)"),
        ("forest_regression.onnx", "TreeEnsembleRegressor (ai.onnx.ml)"),
        ("net_sign.onnx", "the operator Sign"),
        ("net_doubles.onnx", "DOUBLE"),
        ("net_wide_integers.onnx", "Cast from float to 64-bit integers"),
        ("net_to_flags.onnx", "Cast to bool"),
    ] {
        let case = cases.iter().find(|case| case.file == file).unwrap();
        let error = case.load(&builtin()).err().expect(file).to_string();
        assert!(error.contains(operator), "{file}: {error}");
        assert!(error.contains("or serve the model as a Python function"), "{file}: {error}");
    }
}

#[test]
fn an_input_that_the_model_refuses_spoils_only_itself() {
    let case = exports().1.iter().find(|case| case.file == "net_dense.onnx").unwrap();
    let inputs = case.inputs();
    let batch = [inputs[0].clone(), Bytes::from_static(b"1234"), inputs[60].clone()];
    for options in [ort(), builtin()] {
        let mut model = case.load(&options).unwrap();
        let answers = model.predict(&batch);
        assert_eq!(answers[0], model.predict(&batch[..1])[0]);
        let why = answers[1].as_ref().expect_err("too short").to_string();
        assert_eq!(why, "expected 5 floats, got 1 (4 bytes)");
        assert_eq!(answers[2], model.predict(&batch[2..])[0]);
    }
}

/// `clipper deploy`, in a shell where `environment` is active: its exit code and what it said.
fn deploy(
    server: &Clipper,
    file: &Path,
    engine: &str,
    environment: Option<&Path>,
) -> (i32, String) {
    let mut command = Command::new(crate::binary());
    command
        .arg("deploy")
        .arg(file)
        .args(["--app", "tree", "--slo-ms", "30000", "--default-output", "-1"])
        .args(["--input-type", "floats", "--engine", engine, "--url"])
        .arg(format!("http://{}", server.management))
        .env_remove("VIRTUAL_ENV");
    if let Some(environment) = environment {
        command.env("VIRTUAL_ENV", environment);
    }
    let output = command.output().unwrap();
    let says = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(says).unwrap())
}

#[test]
fn line_b_deploy_serves_by_onnx_runtime_what_the_builtin_engine_refuses() {
    let (folder, cases) = exports();
    let server = Clipper::start();
    let file = folder.join("tree_2.onnx");
    let (code, says) = deploy(&server, &file, "builtin", None);
    assert_eq!(code, 1, "{says}");
    assert!(says.contains("TreeEnsembleClassifier") && says.contains("Nothing was"), "{says}");
    let (code, says) = deploy(&server, &file, "auto", Some(&virtual_env()));
    assert_eq!(code, 0, "{says}");
    let labels = |case: &&Case| case.file == "tree_2.onnx" && case.output == "label";
    let case = cases.iter().find(labels).unwrap();
    for (row, expected) in case.rows.iter().zip(&case.expected).take(20) {
        let answer = server.predict("tree", &serde_json::json!({"input": row}));
        assert!(!answer.is_default(), "{answer:?}");
        assert_eq!(answer.output(), expected);
    }
}
