//! Elements as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clipper_domain::Datatype;
use half::{bf16, f16};

/// Appends the elements in `data` as arrays nested as `dims` say; without dimensions the one
/// element. What is not finite is `null`, bytes that are not UTF-8 are `{"b64": "..."}`.
pub fn put_json(datatype: Datatype, dims: &[u64], data: &[u8], out: &mut Vec<u8>) {
    let mut elements = ElementWriter { datatype, left: data };
    put_level(&mut elements, dims, out);
}

fn put_level(elements: &mut ElementWriter<'_>, dims: &[u64], out: &mut Vec<u8>) {
    let Some((count, inner)) = dims.split_first() else { return elements.put_next(out) };
    out.push(b'[');
    for at in 0..*count {
        // Without elements left there is nothing to be nested.
        if elements.left.is_empty() {
            break;
        }
        if at > 0 {
            out.push(b',');
        }
        put_level(elements, inner, out);
    }
    out.push(b']');
}

/// Appends the elements in `data` as one flat list, without its brackets; commas stand between
/// them. `is_first`: nothing stands before them.
pub fn put_flat(datatype: Datatype, data: &[u8], mut is_first: bool, out: &mut Vec<u8>) {
    let mut elements = ElementWriter { datatype, left: data };
    while !elements.left.is_empty() {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        elements.put_next(out);
    }
}

struct ElementWriter<'d> {
    datatype: Datatype,
    left: &'d [u8],
}

impl ElementWriter<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        // Its length was checked when the row was made.
        let Some((element, rest)) = self.left.split_first_chunk() else {
            self.left = &[];
            return [0; N];
        };
        self.left = rest;
        *element
    }

    fn put_next(&mut self, out: &mut Vec<u8>) {
        // Writing to memory does not fail; a float that is not finite is written as null.
        macro_rules! number {
            ($number:expr) => {{
                let number = $number;
                drop(serde_json::to_writer(out, &number));
            }};
        }
        match self.datatype {
            Datatype::Bool => number!(u8::from_le_bytes(self.take()) != 0),
            Datatype::Uint8 => number!(u8::from_le_bytes(self.take())),
            Datatype::Uint16 => number!(u16::from_le_bytes(self.take())),
            Datatype::Uint32 => number!(u32::from_le_bytes(self.take())),
            Datatype::Uint64 => number!(u64::from_le_bytes(self.take())),
            Datatype::Int8 => number!(i8::from_le_bytes(self.take())),
            Datatype::Int16 => number!(i16::from_le_bytes(self.take())),
            Datatype::Int32 => number!(i32::from_le_bytes(self.take())),
            Datatype::Int64 => number!(i64::from_le_bytes(self.take())),
            Datatype::Fp16 => number!(f16::from_le_bytes(self.take()).to_f32()),
            Datatype::Bf16 => number!(bf16::from_le_bytes(self.take()).to_f32()),
            Datatype::Fp32 => number!(f32::from_le_bytes(self.take())),
            Datatype::Fp64 => number!(f64::from_le_bytes(self.take())),
            Datatype::Bytes => {
                let length = usize::try_from(u32::from_le_bytes(self.take())).unwrap_or(0);
                let (text, rest) = self.left.split_at_checked(length).unwrap_or_default();
                self.left = rest;
                put_text(text, out);
            }
        }
    }
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    if let Ok(text) = std::str::from_utf8(text) {
        drop(serde_json::to_writer(out, text));
        return;
    }
    out.extend_from_slice(b"{\"b64\":\"");
    out.extend_from_slice(STANDARD.encode(text).as_bytes());
    out.extend_from_slice(b"\"}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(datatype: Datatype, dims: &[u64], data: &[u8]) -> String {
        let mut out = Vec::new();
        put_json(datatype, dims, data, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn elements_are_nested_as_their_shape_says() {
        assert_eq!(json(Datatype::Uint8, &[2, 3], &[1, 2, 3, 4, 5, 6]), "[[1,2,3],[4,5,6]]");
        assert_eq!(json(Datatype::Uint8, &[], &[9]), "9");
        assert_eq!(json(Datatype::Uint8, &[0, 3], &[]), "[]");
        assert_eq!(json(Datatype::Uint8, &[u64::MAX, 0], &[]), "[]");
        assert_eq!(json(Datatype::Bool, &[2], &[1, 0]), "[true,false]");
        let floats: Vec<u8> =
            [0.1_f32, f32::NAN, -1e30].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(json(Datatype::Fp32, &[3], &floats), "[0.1,null,-1e+30]");
        let half = f16::from_f32(1.5).to_le_bytes();
        assert_eq!(json(Datatype::Fp16, &[1], &half), "[1.5]");
        let texts = b"\x02\0\0\0hi\x01\0\0\0\xff";
        assert_eq!(json(Datatype::Bytes, &[2], texts), r#"["hi",{"b64":"/w=="}]"#);
        let mut flat = Vec::new();
        put_flat(Datatype::Uint8, &[1, 2], true, &mut flat);
        put_flat(Datatype::Uint8, &[3], false, &mut flat);
        assert_eq!(flat, b"1,2,3");
    }
}
