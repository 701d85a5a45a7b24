//! What a version is tried out with. Pure.

use clipper_domain::{BatchSize, Input, Signature};
use clipper_tensors::{RowError, json, sample};

use super::error::TrialError;

/// Queries of the trial batch that follows the first single one: a model that answers one input
/// may still give the wrong number of outputs for more.
const TRIAL_BATCH: u32 = 3;

/// The inputs of a trial.
#[derive(Debug)]
pub enum TrialInputs {
    /// At least one.
    Read(Vec<Input>),
    /// JSON of rows of tensors, which are read by the signature that the first replica says; none
    /// is a row that is made up by it.
    Rows(Vec<String>),
}

impl TrialInputs {
    /// What the trial is made of; at least one.
    pub(super) fn examples(
        self,
        signature: Option<&Signature>,
        bytes_max: usize,
    ) -> Result<Vec<Input>, TrialError> {
        let rows = match self {
            Self::Read(inputs) => return Ok(inputs),
            Self::Rows(rows) => rows,
        };
        // No container of type tensors is taken without one.
        let specs = signature.map(Signature::inputs).unwrap_or_default();
        if rows.is_empty() {
            let made = sample::row(specs, sample::OPEN_LENGTH, bytes_max, &mut sample::harmless(1));
            let made = made.map_err(|why| TrialError::NothingMadeUp(why.to_string()))?;
            return Ok(vec![Input(made)]);
        }
        let read = |row: &String| json::read_row(row, specs, &"input").map(Input);
        let read: Result<Vec<Input>, RowError> = rows.iter().map(read).collect();
        read.map_err(|why| TrialError::NoInput(why.to_string()))
    }
}

/// One query, then all of them, in batches of several.
pub(super) fn trial_batches(examples: &[Input], batch_size: BatchSize) -> Vec<Vec<Input>> {
    let several = match batch_size {
        BatchSize::Adaptive => TRIAL_BATCH,
        BatchSize::Fixed(size) => size.get().min(TRIAL_BATCH),
    } as usize;
    let all: Vec<Input> =
        examples.iter().cycle().take(examples.len().max(several)).cloned().collect();
    let first = examples.iter().take(1).cloned().collect();
    std::iter::once(first).chain(all.chunks(several).map(<[Input]>::to_vec)).collect()
}

#[cfg(test)]
mod tests {
    use clipper_tensors::row::RowCheck;

    use super::*;

    fn signature() -> Signature {
        let json = br#"{"inputs":[{"name":"ids","datatype":"INT64","shape":[-1,-1]},
            {"name":"text","datatype":"BYTES","shape":[-1]}],
            "outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}"#;
        Signature::parse(json).unwrap()
    }

    #[test]
    fn rows_are_made_up_or_read_by_the_signature() {
        let signature = signature();
        let inputs = |rows: &[&str], bytes_max| {
            let rows = rows.iter().map(|row| (*row).to_owned()).collect();
            TrialInputs::Rows(rows).examples(Some(&signature), bytes_max)
        };
        for rows in [&[][..], &[r#"{"ids": [1, 2], "text": "a"}"#]] {
            let made = inputs(rows, 1_000).unwrap();
            assert!(made.iter().all(|input| RowCheck::new(signature.inputs()).takes(&input.0)));
            assert_eq!(trial_batches(&made, BatchSize::Adaptive).concat().len(), 4);
        }
        let wrong = inputs(&[r#"{"ids": [1.5], "text": "a"}"#], 1_000).unwrap_err().to_string();
        assert!(wrong.contains("input.ids: element 0"), "{wrong}");
        assert!(inputs(&[], 8).unwrap_err().to_string().contains("--example"));
    }
}
