//! Numbers of a request reach the model bit for bit, however a client writes them.

use clipper_domain::InputType;
use clipper_scheduling::parse::predict_body;
use proptest::prelude::*;

/// The bytes that a model gets of an input of this number.
fn wire(number: &str, input_type: InputType) -> Option<Vec<u8>> {
    let body = format!(r#"{{"input": [{number}]}}"#);
    let parsed = predict_body(body.as_bytes(), input_type, 1).ok()?;
    parsed.inputs.first().map(|input| input.0.to_vec())
}

/// As clients write it: as short as possible, with an exponent, with all 17 digits.
fn written(number: f64) -> [String; 3] {
    [format!("{number:?}"), format!("{number:e}"), format!("{number:.16e}")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn of_doubles(any in any::<f64>(), usual in -1.0..1.0f64) {
        for number in [any, usual] {
            for text in written(number) {
                let got = wire(&text, InputType::Doubles);
                prop_assert_eq!(got, Some(number.to_le_bytes().to_vec()), "{}", text);
            }
        }
    }

    #[test]
    fn of_floats(number in any::<f32>()) {
        let [short, exponent, digits] = written(f64::from(number));
        for text in [format!("{number:?}"), short, exponent, digits] {
            let got = wire(&text, InputType::Floats);
            prop_assert_eq!(got, Some(number.to_le_bytes().to_vec()), "{}", text);
        }
    }
}
