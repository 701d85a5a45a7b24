//! A batch of tensors, from its message to its answer.

use bytes::Bytes;
use clipper_tensors::batch::{self, Content, Expected, Group};

use super::batch_model::{BatchModel, ModelError};

/// What of an error reaches the server, where that has not said how long it may be.
const ERROR_MAX_BYTES: usize = 1 << 10;

/// The items of the answer to a batch.
pub(super) fn answer(
    model: &mut impl BatchModel,
    items: &[Bytes],
    error_max_bytes: usize,
) -> Vec<Bytes> {
    let max = if error_max_bytes == 0 { ERROR_MAX_BYTES } else { error_max_bytes };
    let signature = model.signature();
    let specs = signature.as_ref().map(|signature| signature.inputs()).unwrap_or_default();
    let expected = Expected { specs, rows: None, error_max_bytes: 0 };
    let groups = match batch::parse(items, expected) {
        Ok(groups) => groups,
        Err(error) => {
            // Nothing is known of its rows: the server ends the connection for their number.
            tracing::error!("the server sent a broken batch: {error}");
            return batch::answer(Vec::new());
        }
    };
    let mut answers = Vec::with_capacity(groups.len());
    for rows in groups {
        answers.extend(answer_group(model, &rows, max));
    }
    batch::answer(answers)
}

/// Makes sure that every row has its output.
fn answer_group(model: &mut impl BatchModel, rows: &Group, max: usize) -> Vec<Group> {
    let why = match model.predict_tensors(rows) {
        Ok(answers) => {
            let given: usize = answers.iter().map(|group| group.rows).sum();
            if given == rows.rows {
                return answers.into_iter().map(|group| shortened(group, max)).collect();
            }
            let why = format!("the model gave {given} outputs for {} inputs", rows.rows);
            tracing::error!("{why}");
            ModelError(why)
        }
        Err(why) => why,
    };
    vec![shortened(error(rows.rows, &why), max)]
}

/// The same error for some rows.
fn error(rows: usize, ModelError(why): &ModelError) -> Group {
    Group { rows, content: Content::Error(Bytes::from(why.clone())) }
}

fn shortened(group: Group, max: usize) -> Group {
    let Content::Error(text) = &group.content else { return group };
    let text = String::from_utf8_lossy(text);
    let text = if text.is_empty() { "the model gave an error without a text" } else { &text };
    let text = text[..text.floor_char_boundary(max)].to_owned();
    Group { rows: group.rows, content: Content::Error(text.into()) }
}
