//! The contents of a pickle: values in an arena, and the tensors and arrays among them.

use serde_json::{Map, Value as Json};

use super::global::{Element, Global, Special};
use super::limits::{MAX_DEPTH, MAX_NAME, MAX_VALUES, Result};

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
    /// A set, a harmless value such as a path: nothing that leads to a tensor or array.
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
    /// An object of a class that is not known, with the pairs that were put into it.
    Foreign(Vec<(Value, Value)>),
    Storage(TensorStorage),
    Tensor(Rebuild),
    /// A tensor that is no plain array of numbers.
    Special(Special),
    /// A type of numbers, by its name, and the order of its bytes, where that is known.
    Dtype {
        name: Value,
        order: Value,
    },
    Array(NumpyArray),
}

/// A storage, which holds the elements of tensors.
#[derive(Debug)]
pub(crate) struct TensorStorage {
    /// Name of the record in the file.
    pub(crate) key: String,
    pub(crate) element: Element,
    /// Elements that the pickle claims.
    pub(crate) len: usize,
}

/// A tensor that a pickle holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PickledTensor {
    /// An array of numbers.
    Plain(Rebuild),
    /// Anything else.
    Special(Special),
}

/// The arguments of `_rebuild_tensor_v2` and `_rebuild_tensor_v3` as found, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rebuild {
    pub(crate) storage: Value,
    pub(crate) offset: Value,
    pub(crate) shape: Value,
    pub(crate) stride: Value,
    /// Type of the elements, if not that of the storage.
    pub(crate) element: Option<Element>,
    /// True where the elements are stored with the other sign.
    pub(crate) negated: bool,
}

/// The state of a `NumPy` array, or of a number of its own, as found.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumpyArray {
    pub(super) shape: Value,
    pub(super) dtype: Value,
    /// True where the first axis is the fastest (column-major).
    pub(super) fortran: Value,
    pub(super) bytes: Value,
}

/// A `NumPy` array.
pub(crate) struct NdArray<'a> {
    /// Its type of numbers, as in `<f8`.
    pub(crate) descr: String,
    pub(crate) shape: Vec<usize>,
    /// True where the first axis is the fastest (column-major).
    pub(crate) fortran: bool,
    pub(crate) bytes: &'a [u8],
}

impl NdArray<'_> {
    /// Its type of numbers without the order of their bytes, and whether that is big-endian, of an
    /// array in row-major order with as many elements as its shape says.
    fn elements(&self) -> Result<(&str, bool)> {
        let name = self.descr.trim_start_matches(['<', '>', '=', '|']);
        if self.fortran {
            return Err("is not in row-major order".into());
        }
        let each = name.get(1..).and_then(|size| size.parse().ok()).unwrap_or(0);
        let len = self.shape.iter().try_fold(each, |n: usize, &side| n.checked_mul(side));
        if len == Some(self.bytes.len()) {
            Ok((name, self.descr.starts_with('>')))
        } else {
            let (n, shape) = (self.bytes.len(), &self.shape);
            Err(format!("holds {n} bytes for the shape {shape:?} of {name}"))
        }
    }
}

impl Default for NumpyArray {
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
    /// Names of the classes that are not known, such as `mine.Config`.
    pub(super) foreign: Vec<String>,
}

impl Pickle {
    pub(crate) fn root(&self) -> Value {
        self.root
    }

    /// Names of the first classes and functions that are not known.
    pub(crate) fn foreign(&self) -> &[String] {
        &self.foreign
    }

    /// The value of a dictionary under a textual key.
    pub(crate) fn get(&self, dict: Value, key: &str) -> Option<Value> {
        let pairs = self.dict(dict)?;
        pairs.iter().find(|&&(name, _)| self.text(name) == Some(key)).map(|&(_, value)| value)
    }

    /// The pairs of a dictionary, or of an object of a class that is filled as one.
    pub(crate) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(pairs) => Some(pairs),
            Node::Foreign(pairs) if !pairs.is_empty() => Some(pairs),
            _ => None,
        }
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

    /// A key of a dictionary that is a text or a number.
    pub(crate) fn key(&self, key: Value) -> Option<String> {
        match (key, self.text(key)) {
            (_, Some(text)) => Some(text.to_string()),
            (Value::Int(number), _) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A `NumPy` array as it stands here; who reads it holds its bytes against its shape.
    pub(crate) fn array(&self, value: Value) -> Result<NdArray<'_>> {
        let Some(&Node::Array(array)) = self.node(value) else {
            return Err("is no NumPy array".into());
        };
        let Some(&Node::Dtype { name, order }) = self.node(array.dtype) else {
            return Err("is an array of unknown elements".into());
        };
        let size = |&side: &Value| match side {
            Value::Int(side) => usize::try_from(side).ok(),
            _ => None,
        };
        let shape: Option<Vec<_>> =
            self.items(array.shape).and_then(|sides| sides.iter().map(size).collect());
        let (Some(shape), Some(Node::Bytes(bytes))) = (shape, self.node(array.bytes)) else {
            return Err("has no shape or no elements".into());
        };
        let name = self.text(name).unwrap_or_default().trim_start_matches('|');
        let order = self.text(order).unwrap_or_default();
        let fortran = !matches!(array.fortran, Value::Bool(false) | Value::Int(0));
        Ok(NdArray { descr: format!("{order}{name}"), shape, fortran, bytes })
    }

    /// Shape and elements of a `NumPy` array of `uint8` in row-major order.
    pub(crate) fn byte_array(&self, value: Value) -> Result<(Vec<usize>, &[u8])> {
        let array = self.array(value)?;
        match array.elements()? {
            ("u1", _) => Ok((array.shape, array.bytes)),
            (other, _) => Err(format!("is no array of uint8 but of {other}")),
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
        let array = self.array(value)?;
        let (name, big_endian) = array.elements()?;
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
        Ok(array.bytes.chunks_exact(size).map(integer).collect())
    }

    /// The number of elements that a tensor claims, 0 where that makes no sense; none for any other
    /// value.
    pub(crate) fn elements(&self, value: Value) -> Option<usize> {
        match self.node(value)? {
            Node::Tensor(tensor) => {
                let sizes = self.items(tensor.shape).unwrap_or_default().iter();
                let size = |&size: &Value| match size {
                    Value::Int(size) => usize::try_from(size).ok(),
                    _ => None,
                };
                let product = |product: usize, size| product.checked_mul(size?);
                Some(sizes.map(size).try_fold(1, product).unwrap_or(0))
            }
            Node::Special(_) => Some(0),
            _ => None,
        }
    }

    pub(crate) fn storage(&self, value: Value) -> Option<&TensorStorage> {
        if let Some(Node::Storage(storage)) = self.node(value) { Some(storage) } else { None }
    }

    /// All storages that the pickle mentions.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &TensorStorage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    fn node(&self, value: Value) -> Option<&Node> {
        if let Value::Node(index) = value { self.nodes.get(index) } else { None }
    }

    /// The tensors in and below `root` but for what `skip` finds, by key and value, in a dictionary;
    /// depth first, under names such as `a.b[0].c`.
    pub(crate) fn tensors(
        &self,
        root: Value,
        skip: impl Fn(&str, Value) -> bool,
    ) -> Result<Vec<(String, PickledTensor)>> {
        let mut found = Vec::new();
        let mut visits = 0;
        let mut todo = vec![(String::new(), 0, root)];
        while let Some((name, depth, value)) = todo.pop() {
            let from = todo.len();
            match self.node(value) {
                Some(&Node::Tensor(tensor)) => found.push((name, PickledTensor::Plain(tensor))),
                Some(&Node::Special(special)) => {
                    found.push((name, PickledTensor::Special(special)));
                }
                Some(Node::Items(items)) => {
                    visits += items.len();
                    let inner = items.iter().enumerate().filter(|(_, item)| self.leads_on(**item));
                    todo.extend(inner.map(|(i, &item)| (format!("{name}[{i}]"), depth + 1, item)));
                }
                Some(Node::Dict(pairs) | Node::Foreign(pairs)) => {
                    visits += pairs.len();
                    let inner =
                        pairs.iter().enumerate().filter(|(_, (_, item))| self.leads_on(*item));
                    for (i, &(key, item)) in inner {
                        let key = self.key(key).unwrap_or_else(|| format!("[{i}]"));
                        if skip(&key, item) {
                            continue;
                        }
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

    /// The values in and below `root` beside tensors, as JSON: a namespace becomes an object, a
    /// tuple a list; tensors, opaque values and numbers that JSON lacks become null.
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
            (_, Some(Node::Foreign(pairs))) if pairs.is_empty() => Json::Null,
            (_, Some(Node::Dict(pairs) | Node::Namespace(pairs) | Node::Foreign(pairs))) => {
                let mut object = Map::new();
                for &(key, item) in pairs {
                    let Some(key) = self.key(key) else { continue };
                    *visits += key.len();
                    object.insert(key, self.json_below(item, depth + 1, visits)?);
                }
                Json::Object(object)
            }
            _ => Json::Null,
        })
    }

    /// Returns true if `value` is, or may contain, a tensor.
    fn leads_on(&self, value: Value) -> bool {
        matches!(
            self.node(value),
            Some(
                Node::Tensor(_)
                    | Node::Special(_)
                    | Node::Items(_)
                    | Node::Dict(_)
                    | Node::Foreign(_)
            )
        )
    }
}
