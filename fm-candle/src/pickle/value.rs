//! What a pickle holds: values in an arena, and the tensors and arrays among them.

use ::safetensors::Dtype;
use serde_json::{Map, Value as Json};

use super::global::Global;
use super::{MAX_DEPTH, MAX_NAME, MAX_VALUES, Result};

/// A value on the stack: small, copied freely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Index into the arena.
    Node(usize),
    Global(Global),
    /// A set, an object of an opaque class: nothing that leads to a tensor or array.
    Other,
}

/// A value in the arena.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    /// Bytes, or a string of Python 2.
    Bytes(Vec<u8>),
    /// A list or tuple.
    Items(Vec<Value>),
    /// Keys and values in the order of insertion.
    Dict(Vec<(Value, Value)>),
    /// The attributes of an `argparse.Namespace`.
    Namespace(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(Rebuild),
    Dtype(Numbers),
    Array(Array),
}

/// Where the elements of tensors lie.
#[derive(Debug)]
pub(crate) struct Storage {
    /// Name of the record in the file.
    pub(crate) key: String,
    pub(crate) dtype: Dtype,
    /// Elements that the pickle claims.
    pub(crate) len: usize,
}

/// The arguments of `_rebuild_tensor_v2` as found, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rebuild {
    pub(crate) storage: Value,
    pub(crate) offset: Value,
    pub(crate) shape: Value,
    pub(crate) stride: Value,
}

/// A type of numbers of `NumPy` as found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Kind and bytes: `u1`.
    pub(super) name: Value,
    /// `>` for big-endian.
    pub(super) order: Value,
}

/// The state of a `NumPy` array, or of a number of its own, as found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Array {
    pub(super) shape: Value,
    pub(super) dtype: Value,
    /// Whether the first axis is the fastest.
    pub(super) fortran: Value,
    pub(super) bytes: Value,
}

impl Default for Array {
    /// An array before it has its state.
    fn default() -> Self {
        Self { shape: Value::None, dtype: Value::None, fortran: Value::None, bytes: Value::None }
    }
}

/// A finished pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(super) root: Value,
    pub(super) nodes: Vec<Node>,
}

impl Pickle {
    pub(crate) fn root(&self) -> Value {
        self.root
    }

    /// What a dictionary holds under a textual key.
    pub(crate) fn get(&self, dict: Value, key: &str) -> Option<Value> {
        let pairs = self.dict(dict)?;
        pairs.iter().find(|&&(name, _)| self.text(name) == Some(key)).map(|&(_, value)| value)
    }

    pub(crate) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Some(Node::Dict(pairs)) = self.node(value) { Some(pairs) } else { None }
    }

    pub(crate) fn items(&self, value: Value) -> Option<&[Value]> {
        if let Some(Node::Items(items)) = self.node(value) { Some(items) } else { None }
    }

    /// Text, or bytes that are text.
    pub(crate) fn text(&self, value: Value) -> Option<&str> {
        match self.node(value)? {
            Node::Text(text) => Some(text),
            Node::Bytes(bytes) => core::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Shape and elements of a `NumPy` array of `uint8` in row-major order.
    pub(crate) fn byte_array(&self, value: Value) -> Result<(Vec<usize>, &[u8])> {
        match self.array(value)? {
            (shape, "u1", _, bytes) => Ok((shape, bytes)),
            (_, name, ..) => Err(format!("is no array of uint8 but of {name}")),
        }
    }

    /// The integers of a list, or of a `NumPy` array of any integer type in row-major order.
    pub(crate) fn integers(&self, value: Value) -> Result<Vec<i64>> {
        let Some(items) = self.items(value) else { return self.integer_array(value) };
        let integer = |(i, &item)| match item {
            Value::Int(number) => Ok(number),
            _ => match self.integer_array(item).as_deref() {
                Ok(&[number]) => Ok(number),
                _ => Err(format!("has no integer at {i}")),
            },
        };
        items.iter().enumerate().map(integer).collect()
    }

    fn integer_array(&self, value: Value) -> Result<Vec<i64>> {
        let (_, name, big_endian, bytes) = self.array(value)?;
        let (signed, size) = match name {
            "i1" | "i2" | "i4" | "i8" => (true, usize::from(name.as_bytes()[1] - b'0')),
            "u1" | "u2" | "u4" | "u8" => (false, usize::from(name.as_bytes()[1] - b'0')),
            _ => return Err(format!("is no array of integers but of {name}")),
        };
        let integer = |bytes: &[u8]| {
            let mut low_first: Vec<u8> = bytes.to_vec();
            if big_endian {
                low_first.reverse();
            }
            let negative = signed && low_first.last().is_some_and(|&top| top >= 0x80);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..size].copy_from_slice(&low_first);
            if signed {
                i64::from_le_bytes(wide)
            } else {
                i64::try_from(u64::from_le_bytes(wide)).unwrap_or(i64::MAX)
            }
        };
        Ok(bytes.chunks_exact(size).map(integer).collect())
    }

    /// Shape, type of numbers, whether these are big-endian, and bytes of a `NumPy` array in
    /// row-major order.
    fn array(&self, value: Value) -> Result<(Vec<usize>, &str, bool, &[u8])> {
        let Some(&Node::Array(array)) = self.node(value) else {
            return Err("is no NumPy array".into());
        };
        let Some(&Node::Dtype(Numbers { name, order })) = self.node(array.dtype) else {
            return Err("is an array of no type".into());
        };
        let name = self.text(name).ok_or("is an array of no type")?;
        let big_endian = name.starts_with('>') || self.text(order) == Some(">");
        let name = name.trim_start_matches(['<', '>', '=', '|']);
        if !matches!(array.fortran, Value::Bool(false) | Value::Int(0)) {
            return Err("is not in row-major order".into());
        }
        let size = |&side: &Value| match side {
            Value::Int(side) => usize::try_from(side).ok(),
            _ => None,
        };
        let shape: Option<Vec<_>> =
            self.items(array.shape).and_then(|sides| sides.iter().map(size).collect());
        let (Some(shape), Some(Node::Bytes(bytes))) = (shape, self.node(array.bytes)) else {
            return Err("has no shape or no elements".into());
        };
        let each = name.get(1..).and_then(|size| size.parse().ok()).unwrap_or(0);
        let len = shape.iter().try_fold(each, |n: usize, &side| n.checked_mul(side));
        if len == Some(bytes.len()) {
            Ok((shape, name, big_endian, bytes))
        } else {
            Err(format!("holds {} bytes for the shape {shape:?} of {name}", bytes.len()))
        }
    }

    pub(crate) fn storage(&self, value: Value) -> Option<&Storage> {
        if let Some(Node::Storage(storage)) = self.node(value) { Some(storage) } else { None }
    }

    /// All storages that the pickle mentions.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    fn node(&self, value: Value) -> Option<&Node> {
        if let Value::Node(index) = value { self.nodes.get(index) } else { None }
    }

    /// The tensors in and below `root`, depth first, under names such as `a.b[0].c`.
    pub(crate) fn tensors(&self, root: Value) -> Result<Vec<(String, Rebuild)>> {
        let mut found = Vec::new();
        let mut visits = 0;
        let mut todo = vec![(String::new(), 0, root)];
        while let Some((name, depth, value)) = todo.pop() {
            let from = todo.len();
            match self.node(value) {
                Some(&Node::Tensor(tensor)) => found.push((name, tensor)),
                Some(Node::Items(items)) => {
                    visits += items.len();
                    let inner = items.iter().enumerate().filter(|(_, item)| self.leads_on(**item));
                    todo.extend(inner.map(|(i, &item)| (format!("{name}[{i}]"), depth + 1, item)));
                }
                Some(Node::Dict(pairs)) => {
                    visits += pairs.len();
                    for &(key, item) in pairs.iter().filter(|(_, item)| self.leads_on(*item)) {
                        let key = match (key, self.text(key)) {
                            (_, Some(text)) => text.to_string(),
                            (Value::Int(number), _) => number.to_string(),
                            _ => return Err(format!("`{name}` has a key that is no text")),
                        };
                        let dot = if name.is_empty() { "" } else { "." };
                        if name.len() + key.len() > MAX_NAME {
                            return Err(format!("a name is longer than {MAX_NAME} bytes"));
                        }
                        todo.push((format!("{name}{dot}{key}"), depth + 1, item));
                    }
                }
                _ => {}
            }
            if depth > MAX_DEPTH || visits > MAX_VALUES {
                return Err("its containers are nested too deep or too often".into());
            }
            todo[from..].reverse();
        }
        Ok(found)
    }

    /// What is in and below `root` beside tensors, as JSON: a namespace becomes an object, a tuple
    /// a list; tensors, opaque values and numbers that JSON lacks become null.
    pub(crate) fn json(&self, root: Value) -> Result<Json> {
        self.json_below(root, 0, &mut 0)
    }

    fn json_below(&self, value: Value, depth: usize, visits: &mut usize) -> Result<Json> {
        *visits += 1;
        if depth > MAX_DEPTH || *visits > MAX_VALUES {
            return Err("its containers are nested too deep or too often".into());
        }
        Ok(match (value, self.node(value)) {
            (Value::Bool(value), _) => value.into(),
            (Value::Int(value), _) => value.into(),
            (Value::Float(value), _) => value.into(),
            (_, Some(Node::Text(_) | Node::Bytes(_))) => {
                let text = self.text(value);
                *visits += text.map_or(0, str::len);
                text.into()
            }
            (_, Some(Node::Items(items))) => {
                let items = items.iter().map(|&item| self.json_below(item, depth + 1, visits));
                Json::Array(items.collect::<Result<_>>()?)
            }
            (_, Some(Node::Dict(pairs) | Node::Namespace(pairs))) => {
                let mut object = Map::new();
                for &(key, item) in pairs {
                    let key = match (key, self.text(key)) {
                        (_, Some(text)) => text.to_string(),
                        (Value::Int(number), _) => number.to_string(),
                        _ => continue,
                    };
                    *visits += key.len();
                    object.insert(key, self.json_below(item, depth + 1, visits)?);
                }
                Json::Object(object)
            }
            _ => Json::Null,
        })
    }

    /// Whether `value` is, or may contain, a tensor.
    fn leads_on(&self, value: Value) -> bool {
        matches!(self.node(value), Some(Node::Tensor(_) | Node::Items(_) | Node::Dict(_)))
    }
}
