//! The message of `ModelInfer`.

use clipper_oip::grpc::{InferTensor, ModelInferRequest};
use clipper_oip::{Datatype, INPUT};
use prost::Message as _;

use super::{InputPlan, JsonRow, Template, binary_row, is_text};

impl Template {
    /// All of the message but the name of the model, for which [`before`] is.
    pub(super) fn grpc(plan: &InputPlan) -> Self {
        let (len, rows) = (plan.len, plan.batch.unwrap_or(1));
        let is_text = is_text(plan.input_type);
        let row =
            JsonRow::new(if is_text { super::InputType::Strings } else { plan.input_type }, len);
        let (one, hole) = binary_row(plan.input_type, len);
        let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let shape = if is_text { vec![whole(rows)] } else { vec![whole(rows), whole(len)] };
        let message = ModelInferRequest {
            inputs: vec![InferTensor {
                name: INPUT.to_owned(),
                datatype: Datatype::of(plan.input_type).name().to_owned(),
                shape,
                ..InferTensor::default()
            }],
            raw_input_contents: vec![one.repeat(rows).into()],
            ..ModelInferRequest::default()
        };
        // The elements are its end.
        let body = message.encode_to_vec();
        let start = body.len() - one.len() * rows;
        let holes = (0..rows).map(|row| start + row * one.len() + hole).collect();
        let binary = (!is_text).then_some(plan.input_type);
        Self { binary, ..Self::of(&row, body, holes) }
    }
}

/// What goes before a template's body: the head of the frame, and the model that is asked.
pub(in crate::bench) fn before(model: &str, body_bytes: usize) -> Vec<u8> {
    let name = ModelInferRequest { model_name: model.to_owned(), ..ModelInferRequest::default() };
    let name = name.encode_to_vec();
    let length = u32::try_from(name.len() + body_bytes).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &name].concat()
}

#[cfg(test)]
mod tests {
    use clipper_domain::InputType;
    use clipper_oip::grpc::Request;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::bench::inputs::{Choice, InputSource, Protocol};

    #[test]
    fn the_server_reads_what_is_written() {
        for input_type in InputType::FLAT {
            let (protocol, choice) = (Protocol::Grpc, Choice::Unique);
            let plan = InputPlan { protocol, input_type, len: 12, batch: Some(3), choice };
            let (template, source) = (Template::new(&plan), InputSource::new(&plan, 5));
            let mut rng = SmallRng::seed_from_u64(1);
            let mut body = template.body.clone();
            template.fill(&mut body, || source.next(&mut rng));
            let frame = [before("m", body.len()), body].concat();
            let (head, message) = frame.split_at(5);
            assert_eq!(
                head,
                [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat()
            );
            let read = Request::read(message).unwrap();
            assert_eq!(read.model_name, "m");
            let read = read.infer(input_type, 100).unwrap();
            let [a, b, c] = &read.inputs[..] else { panic!("three rows") };
            assert!(a != b && b != c && a.0.len() == 12 * input_type.element_bytes());
        }
    }
}
