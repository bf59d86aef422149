//! A Python object as a pickle of protocol 2, without a memo.
//!
//! A tensor is a call of `torch._utils._rebuild_tensor_v2` over a storage of its own, on the CPU;
//! the storages are numbered in the order of the tensors. Of plain containers and tensors made,
//! `torch.load(weights_only=True)` takes it; a namespace it takes only where it is told to.
//!
//! Source: `PyTorch`, `torch/serialization.py` (`_save`) and `torch/_utils.py`; Python,
//! `Lib/pickletools.py`.

use candle_core::DType;
use serde_json::Value as Json;

/// A Python object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    /// `None`.
    None,
    /// A bool.
    Bool(bool),
    /// An int.
    Int(i64),
    /// A float.
    Float(f64),
    /// A str.
    Text(String),
    /// A list.
    List(Vec<Object>),
    /// A tuple.
    Tuple(Vec<Object>),
    /// A dict.
    Dict(Vec<(Object, Object)>),
    /// A `collections.OrderedDict`, as a state dict is one.
    Ordered(Vec<(Object, Object)>),
    /// An `argparse.Namespace` with these attributes.
    Namespace(Vec<(Object, Object)>),
    /// A tensor of a dtype that has a [`storage`], and of this shape, in row-major order.
    Tensor(DType, Vec<usize>),
}

impl From<&str> for Object {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&Json> for Object {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(int) => Self::Int(int),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Json::Object(map) => Self::Dict(attributes(map)),
        }
    }
}

/// The entries of a JSON object as those of a dict or a namespace.
pub(crate) fn attributes(map: &serde_json::Map<String, Json>) -> Vec<(Object, Object)> {
    map.iter().map(|(key, value)| (Object::Text(key.clone()), value.into())).collect()
}

/// The pickle of `object`.
pub(in crate::checkpoint) fn pickle(object: &Object) -> Vec<u8> {
    let mut pickler = Pickler { out: vec![0x80, 2], storages: 0 }; // PROTO
    pickler.put(object);
    pickler.out.push(b'.'); // STOP
    pickler.out
}

/// A pickle under construction.
struct Pickler {
    out: Vec<u8>,
    storages: usize,
}

impl Pickler {
    /// Writes an object; containers are as deep as the caller has built them.
    fn put(&mut self, object: &Object) {
        match object {
            Object::None => self.out.push(b'N'),
            Object::Bool(value) => self.out.push(if *value { 0x88 } else { 0x89 }),
            Object::Int(number) => self.int(*number),
            Object::Float(value) => {
                self.out.push(b'G'); // BINFLOAT, big-endian
                self.out.extend(value.to_be_bytes());
            }
            Object::Text(text) => self.text(text),
            Object::List(items) => self.enclosed(b"](", items, b"e"), // EMPTY_LIST MARK .. APPENDS
            Object::Tuple(items) => self.enclosed(b"(", items, b"t"), // MARK .. TUPLE
            Object::Dict(pairs) => self.dict(b"}", pairs),            // EMPTY_DICT
            // GLOBAL EMPTY_TUPLE REDUCE
            Object::Ordered(pairs) => self.dict(b"ccollections\nOrderedDict\n)R", pairs),
            Object::Namespace(pairs) => {
                self.out.extend(b"cargparse\nNamespace\n)\x81"); // GLOBAL EMPTY_TUPLE NEWOBJ
                self.dict(b"}", pairs);
                self.out.push(b'b'); // BUILD
            }
            Object::Tensor(dtype, shape) => self.tensor(*dtype, shape),
        }
    }

    fn enclosed(&mut self, start: &[u8], items: &[Object], end: &[u8]) {
        self.out.extend(start);
        for item in items {
            self.put(item);
        }
        self.out.extend(end);
    }

    fn dict(&mut self, start: &[u8], pairs: &[(Object, Object)]) {
        self.out.extend(start);
        self.out.push(b'('); // MARK
        for (key, value) in pairs {
            self.put(key);
            self.put(value);
        }
        self.out.push(b'u'); // SETITEMS
    }

    fn tensor(&mut self, dtype: DType, shape: &[usize]) {
        self.out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(("); // GLOBAL MARK MARK
        self.text("storage");
        let storage = storage(dtype).unwrap_or_default();
        self.out.extend(format!("ctorch\n{storage}\n").bytes()); // GLOBAL
        self.text(&self.storages.to_string());
        self.text("cpu");
        self.size(shape.iter().product());
        self.out.extend(b"tQ"); // TUPLE BINPERSID
        self.size(0);
        self.sizes(shape);
        self.sizes(&strides(shape));
        // Needs no gradient, has no hooks: NEWFALSE, an empty dictionary, TUPLE REDUCE.
        self.out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        self.storages += 1;
    }

    /// BINUNICODE; texts are far shorter than 4 GiB.
    fn text(&mut self, text: &str) {
        self.out.push(b'X');
        self.out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.out.extend(text.bytes());
    }

    /// BININT1, BININT or LONG1.
    fn int(&mut self, number: i64) {
        if let Ok(byte) = u8::try_from(number) {
            self.out.extend([b'K', byte]);
        } else if let Ok(int) = i32::try_from(number) {
            self.out.push(b'J');
            self.out.extend(int.to_le_bytes());
        } else {
            self.out.extend([0x8a, 8]);
            self.out.extend(number.to_le_bytes());
        }
    }

    /// A size in memory, which is below 2^63.
    fn size(&mut self, size: usize) {
        self.int(i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// MARK, the sizes, TUPLE.
    fn sizes(&mut self, sizes: &[usize]) {
        self.out.push(b'(');
        for &size in sizes {
            self.size(size);
        }
        self.out.push(b't');
    }
}

/// Torch's storage class for a dtype.
pub(in crate::checkpoint) fn storage(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::U8 => "ByteStorage",
        DType::I16 => "ShortStorage",
        DType::I32 => "IntStorage",
        DType::I64 => "LongStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        DType::F32 => "FloatStorage",
        DType::F64 => "DoubleStorage",
        _ => return None,
    })
}

/// Row-major strides, in elements; torch counts an empty axis as one element.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_those_of_torch() {
        assert!(strides(&[]).is_empty());
        assert_eq!(strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(strides(&[2, 0, 4]), [4, 4, 1]);
    }

    #[test]
    fn every_kind_of_object() {
        let bytes = |object| pickle(&object)[2..].to_vec();
        assert_eq!(bytes(Object::Int(255)), b"K\xff.");
        assert_eq!(bytes(Object::Int(256)), b"J\x00\x01\0\0.");
        assert_eq!(bytes(Object::Int(-1)), b"J\xff\xff\xff\xff.");
        assert_eq!(bytes(Object::Int(1 << 31)), b"\x8a\x08\0\0\0\x80\0\0\0\0.");
        assert_eq!(bytes(Object::Float(1.0)), b"G\x3f\xf0\0\0\0\0\0\0.");
        assert_eq!(bytes(Object::Tuple(vec![Object::None, Object::Bool(true)])), b"(N\x88t.");
        let json = serde_json::json!({"a": [0.5, "b"], "c": {}});
        assert_eq!(
            bytes(Object::from(&json)),
            b"}(X\x01\0\0\0a](G\x3f\xe0\0\0\0\0\0\0X\x01\0\0\0beX\x01\0\0\0c}(uu."
        );
        let namespace = Object::Namespace(vec![("n".into(), Object::Int(3))]);
        assert_eq!(bytes(namespace), b"cargparse\nNamespace\n)\x81}(X\x01\0\0\0nK\x03ub.");
    }
}
