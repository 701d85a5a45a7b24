//! Tests of [`super`]: what the server makes of the bodies.

use super::*;
use clipper_oip::grpc::Request;
use clipper_tensors::json::read_row;

const PROTOCOLS: [Protocol; 4] =
    [Protocol::Predict, Protocol::V2, Protocol::V2Binary, Protocol::Grpc];

fn signature() -> Signature {
    let tensor = |datatype: Datatype| {
        let (name, shape) = (datatype.name(), json!([-1, 2, -1]));
        json!({"name": name, "datatype": name, "shape": shape})
    };
    let mut inputs: Vec<serde_json::Value> = Datatype::ALL.into_iter().map(tensor).collect();
    inputs.push(json!({"name": "\"scalar\"", "datatype": "INT64", "shape": [-1]}));
    let both = json!({"inputs": inputs, "outputs": [tensor(Datatype::Fp32)]});
    Signature::parse(both.to_string().as_bytes()).unwrap()
}

/// What the server makes of a body.
fn read(protocol: Protocol, batch: Option<usize>, body: &Body, bytes: &[u8]) -> Vec<Vec<u8>> {
    let signature = Arc::new(signature());
    let rows = match protocol {
        Protocol::Predict => {
            let page: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            let rows = match batch {
                None => vec![page["input"].clone()],
                Some(_) => page["input_batch"].as_array().unwrap().clone(),
            };
            let row = |row: &serde_json::Value| {
                read_row(&row.to_string(), signature.inputs(), &"input").unwrap().to_vec()
            };
            return rows.iter().map(row).collect();
        }
        Protocol::Grpc => {
            let frame = super::super::grpc::before("m", bytes.len());
            let message = [&frame[5..], bytes].concat();
            Request::read(&message).unwrap().infer_tensors(&signature, 100).unwrap()
        }
        Protocol::V2 | Protocol::V2Binary => {
            let header = body.json_bytes.map(|bytes| bytes.to_string());
            let header = header.as_ref().map(String::as_bytes);
            clipper_oip::parse_tensors(bytes, header, &signature, 100).unwrap()
        }
    };
    rows.inputs.iter().map(|input| input.0.to_vec()).collect()
}

#[test]
fn the_server_reads_what_is_made_by_chance() {
    for (protocol, batch) in PROTOCOLS.into_iter().flat_map(|one| [(one, None), (one, Some(3))]) {
        let random = TensorRows::Random { open: 40, below: 1_000 };
        let plan = TensorPlan::new(signature(), random, (protocol, batch)).unwrap();
        let [body] = &plan.bodies(protocol, batch)[..] else { panic!("one body") };
        let rows_of = |start: u64| {
            let mut bytes = body.bytes.clone();
            let mut number = start;
            body.fill(&mut bytes, || {
                number += 1;
                number
            });
            read(protocol, batch, body, &bytes)
        };
        let (one, again, next) = (rows_of(0), rows_of(0), rows_of(1));
        assert_eq!(one.len(), batch.unwrap_or(1), "{protocol:?}");
        assert_eq!(one, again);
        assert!(one.iter().zip(&next).all(|(one, next)| one != next), "{protocol:?}");
        if batch.is_some() {
            assert_ne!(one[0], one[1]);
        }
        // A row is told by its number in its elements that change, wherever it stands.
        let changing = |row: &[u8]| {
            let (_, tensors) = row::read(row).unwrap();
            tensors.iter().map(|one| one.data[..1].to_vec()).collect::<Vec<_>>()
        };
        if batch.is_some() {
            assert_eq!(changing(&one[1]), changing(&next[0]), "{protocol:?}");
        }
    }
}

#[test]
fn the_server_reads_what_was_given() {
    let signature = signature();
    let row = |open, variant| {
        let mut numbers = sample::harmless(variant);
        sample::row(signature.inputs(), open, 10_000, &mut numbers).unwrap()
    };
    let rows = [row(3, 1), row(3, 3)];
    for (protocol, batch) in PROTOCOLS.into_iter().flat_map(|one| [(one, None), (one, Some(3))]) {
        let given = TensorRows::Given(rows.to_vec());
        let plan = TensorPlan::new(signature.clone(), given, (protocol, batch)).unwrap();
        let bodies = plan.bodies(protocol, batch);
        assert_eq!(bodies.len(), 2);
        for (first, body) in bodies.iter().enumerate() {
            let read = read(protocol, batch, body, &body.bytes);
            let wanted = rows.iter().cycle().skip(first).take(batch.unwrap_or(1));
            assert!(read.iter().map(Vec::as_slice).eq(wanted.map(|row| &row[..])));
        }
    }
    let new = |rows, of| TensorPlan::new(signature.clone(), TensorRows::Given(rows), of);
    let mixed = vec![row(3, 1), row(4, 1)];
    assert!(new(mixed.clone(), (Protocol::V2, None)).is_ok());
    assert!(new(mixed.clone(), (Protocol::Predict, Some(2))).is_ok());
    let both = new(mixed, (Protocol::V2, Some(2)));
    assert_eq!(both.unwrap_err(), NoRequests::Shape(1));
    assert_eq!(new(vec![], (Protocol::V2, None)).unwrap_err(), NoRequests::None);
    let other = new(vec![Arc::from(&b"x"[..])], (Protocol::V2, None));
    assert_eq!(other.unwrap_err(), NoRequests::Other(0));
    let huge = TensorRows::Random { open: 1 << 40, below: 2 };
    let huge = TensorPlan::new(signature.clone(), huge, (Protocol::V2, None));
    assert_eq!(huge.unwrap_err(), NoRequests::TooLarge);
}
