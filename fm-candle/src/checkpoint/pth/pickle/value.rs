//! What a pickle holds: values in an arena, and the tensors among them.

use ::safetensors::Dtype;
use serde_json::{Map, Value as Json};

use super::global::Global;
use super::{MAX_DEPTH, MAX_NAME, MAX_VALUES, Result};

/// A value on the stack: small, copied freely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Index into the arena.
    Node(usize),
    Global(Global),
    /// Bytes, a set, an object of an opaque class: nothing that leads to a tensor.
    Other,
}

/// A value in the arena.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    /// A list or tuple.
    Items(Vec<Value>),
    /// Keys and values in the order of insertion.
    Dict(Vec<(Value, Value)>),
    /// The attributes of an `argparse.Namespace`.
    Namespace(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(Rebuild),
}

/// Where the elements of tensors lie.
#[derive(Debug)]
pub(in super::super) struct Storage {
    /// Name of the record in the file.
    pub(in super::super) key: String,
    pub(in super::super) dtype: Dtype,
    /// Elements that the pickle claims.
    pub(in super::super) len: usize,
}

/// The arguments of `_rebuild_tensor_v2` as found, in elements.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rebuild {
    pub(in super::super) storage: Value,
    pub(in super::super) offset: Value,
    pub(in super::super) shape: Value,
    pub(in super::super) stride: Value,
}

/// A finished pickle.
#[derive(Debug)]
pub(in super::super) struct Pickle {
    pub(super) root: Value,
    pub(super) nodes: Vec<Node>,
}

impl Pickle {
    pub(in super::super) fn root(&self) -> Value {
        self.root
    }

    /// What a dictionary holds under a textual key.
    pub(in super::super) fn get(&self, dict: Value, key: &str) -> Option<Value> {
        let pairs = self.dict(dict)?;
        pairs.iter().find(|&&(name, _)| self.text(name) == Some(key)).map(|&(_, value)| value)
    }

    pub(in super::super) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Some(Node::Dict(pairs)) = self.node(value) { Some(pairs) } else { None }
    }

    pub(in super::super) fn items(&self, value: Value) -> Option<&[Value]> {
        if let Some(Node::Items(items)) = self.node(value) { Some(items) } else { None }
    }

    pub(in super::super) fn text(&self, value: Value) -> Option<&str> {
        if let Some(Node::Text(text)) = self.node(value) { Some(text) } else { None }
    }

    pub(in super::super) fn storage(&self, value: Value) -> Option<&Storage> {
        if let Some(Node::Storage(storage)) = self.node(value) { Some(storage) } else { None }
    }

    /// All storages that the pickle mentions.
    pub(in super::super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    fn node(&self, value: Value) -> Option<&Node> {
        if let Value::Node(index) = value { self.nodes.get(index) } else { None }
    }

    /// The tensors in and below `root`, depth first, under names such as `a.b[0].c`.
    pub(in super::super) fn tensors(&self, root: Value) -> Result<Vec<(String, Rebuild)>> {
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
    pub(in super::super) fn json(&self, root: Value) -> Result<Json> {
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
            (_, Some(Node::Text(text))) => {
                *visits += text.len();
                text.as_str().into()
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
