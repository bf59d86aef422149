//! A pickle machine that builds what a torch checkpoint holds and calls nothing.
//!
//! A pickle is a program for a stack machine. This one knows the opcodes of protocols 2 to 5
//! and a closed list of [`Global`]s: containers, the functions that rebuild tensors (noted
//! down, not called), and harmless types that appear in training arguments (kept as
//! [`Value::Other`]). Any other name is refused, as is anything that calls a value.
//!
//! Values live in an arena and refer to each other by index: sharing costs nothing, nesting
//! of any depth neither recurses nor overflows, and the counts of values, memo entries and
//! bytes are bounded.
//!
//! Source: `Lib/pickletools.py` of Python; `torch/serialization.py` and `torch/_utils.py` of
//! `PyTorch`.

use std::collections::HashMap;
use std::io::{self, Read};

use ::safetensors::Dtype;

/// Why a pickle, or a value in it, is refused.
type Result<T> = core::result::Result<T, String>;

/// Longest pickle in bytes; upstream's largest checkpoint needs half of one MiB.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// Most values in the arena, on the stack and in the memo; a tensor takes about nine.
const MAX_VALUES: usize = 1 << 20;
/// Deepest container around a tensor.
const MAX_DEPTH: usize = 64;
/// Longest dotted name of a tensor in bytes.
const MAX_NAME: usize = 1024;

/// A value on the stack: small, copied freely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Index into the arena.
    Node(usize),
    Global(Global),
    /// A float, bytes, a set, an object: nothing that leads to a tensor.
    Other,
}

/// A name that a pickle may mention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    /// A class of dictionaries.
    Dict,
    /// `torch._utils._rebuild_tensor_v2` and its forerunner.
    Tensor,
    /// `torch._utils._rebuild_parameter`: its first argument is the tensor.
    Parameter,
    /// A class of typed storages, such as `torch.FloatStorage`.
    Storage(Dtype),
    /// A class or function whose results lead to no tensor.
    Other,
}

/// A value in the arena.
#[derive(Debug)]
enum Node {
    Text(String),
    /// A list or tuple.
    Items(Vec<Value>),
    /// Keys and values in the order of insertion.
    Dict(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(Rebuild),
}

/// Where the elements of tensors lie.
#[derive(Debug)]
pub(super) struct Storage {
    /// Name of the record in the file.
    pub(super) key: String,
    pub(super) dtype: Dtype,
    /// Elements that the pickle claims.
    pub(super) len: usize,
}

/// The arguments of `_rebuild_tensor_v2` as found, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rebuild {
    pub(super) storage: Value,
    pub(super) offset: Value,
    pub(super) shape: Value,
    pub(super) stride: Value,
}

/// A finished pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    root: Value,
    nodes: Vec<Node>,
}

impl Pickle {
    /// Runs the pickle at the start of `input`, reading not past its end.
    pub(super) fn load(input: impl Read) -> Result<Self> {
        let input = input.take(MAX_BYTES);
        let pickle = Self { root: Value::None, nodes: Vec::new() };
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        let mut machine = Machine { input, stack, marks, memo, pickle };
        let root = machine.run()?;
        Ok(Self { root, ..machine.pickle })
    }

    pub(super) fn root(&self) -> Value {
        self.root
    }

    /// What a dictionary holds under a textual key.
    pub(super) fn get(&self, dict: Value, key: &str) -> Option<Value> {
        let pairs = self.dict(dict)?;
        pairs.iter().find(|&&(name, _)| self.text(name) == Some(key)).map(|&(_, value)| value)
    }

    pub(super) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Some(Node::Dict(pairs)) = self.node(value) { Some(pairs) } else { None }
    }

    pub(super) fn items(&self, value: Value) -> Option<&[Value]> {
        if let Some(Node::Items(items)) = self.node(value) { Some(items) } else { None }
    }

    pub(super) fn text(&self, value: Value) -> Option<&str> {
        if let Some(Node::Text(text)) = self.node(value) { Some(text) } else { None }
    }

    pub(super) fn storage(&self, value: Value) -> Option<&Storage> {
        if let Some(Node::Storage(storage)) = self.node(value) { Some(storage) } else { None }
    }

    /// All storages that the pickle mentions.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    fn node(&self, value: Value) -> Option<&Node> {
        if let Value::Node(index) = value { self.nodes.get(index) } else { None }
    }

    /// The tensors in and below `root`, depth first, under names such as `a.b[0].c`.
    pub(super) fn tensors(&self, root: Value) -> Result<Vec<(String, Rebuild)>> {
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

    /// Whether `value` is, or may contain, a tensor.
    fn leads_on(&self, value: Value) -> bool {
        matches!(self.node(value), Some(Node::Tensor(_) | Node::Items(_) | Node::Dict(_)))
    }
}

/// The running machine.
struct Machine<R> {
    input: io::Take<R>,
    stack: Vec<Value>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    pickle: Pickle,
}

impl<R: Read> Machine<R> {
    /// Runs to the STOP opcode and returns the value on top.
    fn run(&mut self) -> Result<Value> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(), // STOP
                opcode => self.step(opcode)?,
            }
            let Self { stack, marks, memo, pickle, .. } = self;
            let lens = [stack.len(), marks.len(), memo.len(), pickle.nodes.len()];
            if lens.iter().any(|&len| len > MAX_VALUES) {
                return Err(format!("the pickle makes more than {MAX_VALUES} values"));
            }
        }
    }

    /// Obeys one opcode. The names in the comments are those of `pickletools`.
    fn step(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            // Constants.
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => self.int(4)?,                        // BININT
            b'K' => self.unsigned(1)?,                   // BININT1
            b'M' => self.unsigned(2)?,                   // BININT2
            0x8a => self.sized(1, Self::int)?,           // LONG1
            0x8b => self.sized(4, Self::int)?,           // LONG4
            b'G' => self.other(8)?,                      // BINFLOAT
            b'C' => self.sized(1, Self::other)?,         // SHORT_BINBYTES
            b'B' => self.sized(4, Self::other)?,         // BINBYTES
            0x8e | 0x96 => self.sized(8, Self::other)?,  // BINBYTES8, BYTEARRAY8
            b'U' | 0x8c => self.sized(1, Self::string)?, // SHORT_BINSTRING, SHORT_BINUNICODE
            b'T' | b'X' => self.sized(4, Self::string)?, // BINSTRING, BINUNICODE
            0x8d => self.sized(8, Self::string)?,        // BINUNICODE8
            // Containers.
            0x8f => Value::Other,                                   // EMPTY_SET
            b']' | b')' => self.add(Node::Items(Vec::new())),       // EMPTY_LIST, EMPTY_TUPLE
            b'}' => self.add(Node::Dict(Vec::new())),               // EMPTY_DICT
            b'l' | b't' => self.pop_mark().map(|v| self.items(v))?, // LIST, TUPLE
            0x85 => self.pop_array::<1>().map(|v| self.items(v.into()))?, // TUPLE1
            0x86 => self.pop_array::<2>().map(|v| self.items(v.into()))?, // TUPLE2
            0x87 => self.pop_array::<3>().map(|v| self.items(v.into()))?, // TUPLE3
            b'd' => self.pop_mark().map(|v| self.add(Node::Dict(pairs(&v))))?, // DICT
            0x91 => self.pop_mark().map(|_| Value::Other)?,         // FROZENSET
            // Globals and what is made of them.
            b'c' => self.global()?,       // GLOBAL
            0x93 => self.stack_global()?, // STACK_GLOBAL
            b'R' | 0x81 => self.pop_array().and_then(|[f, a]| self.make(f, a))?, // REDUCE, NEWOBJ
            0x92 => self.pop_array().and_then(|[f, a, _]| self.make(f, a))?, // NEWOBJ_EX
            b'Q' => self.pop().and_then(|id| self.storage(id))?, // BINPERSID
            // Copies.
            b'2' => self.top()?,                  // DUP
            b'h' => self.sized(1, Self::recall)?, // BINGET
            b'j' => self.sized(4, Self::recall)?, // LONG_BINGET
            // All others push nothing.
            _ => return self.effect(opcode),
        };
        self.stack.push(value);
        Ok(())
    }

    /// Obeys an opcode that pushes no value.
    fn effect(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            0x80 => _ = self.other(1)?,                                   // PROTO
            0x95 => _ = self.other(8)?,                                   // FRAME
            b'(' => self.marks.push(self.stack.len()),                    // MARK
            b'0' | b'b' => _ = self.pop()?,                               // POP, BUILD (an object)
            b'1' | 0x90 => _ = self.pop_mark()?, // POP_MARK, ADDITEMS (a set)
            b'a' => self.pop().and_then(|v| self.append(&[v]))?, // APPEND
            b'e' => self.pop_mark().and_then(|v| self.append(&v))?, // APPENDS
            b's' => self.pop_array::<2>().and_then(|v| self.insert(&v))?, // SETITEM
            b'u' => self.pop_mark().and_then(|v| self.insert(&v))?, // SETITEMS
            b'q' => self.uint(1).and_then(|at| self.remember(at))?, // BINPUT
            b'r' => self.uint(4).and_then(|at| self.remember(at))?, // LONG_BINPUT
            0x94 => self.remember(self.memo.len() as u64)?, // MEMOIZE
            _ => return Err(format!("pickle opcode {opcode:#04x} belongs to no checkpoint")),
        }
        Ok(())
    }

    /// What a call of `function` would give, without the call.
    fn make(&mut self, function: Value, arguments: Value) -> Result<Value> {
        let Value::Global(global) = function else {
            return Err("the pickle calls a value".into());
        };
        let arguments = self.pickle.items(arguments).unwrap_or_default();
        match (global, arguments) {
            (Global::Dict, _) => Ok(self.add(Node::Dict(Vec::new()))),
            (Global::Tensor, &[storage, offset, shape, stride, ..]) => {
                Ok(self.add(Node::Tensor(Rebuild { storage, offset, shape, stride })))
            }
            (Global::Parameter, &[tensor, ..]) => Ok(tensor),
            (Global::Storage(_) | Global::Other, _) => Ok(Value::Other),
            (Global::Tensor | Global::Parameter, _) => Err("a tensor lacks its arguments".into()),
        }
    }

    /// The storage of a persistent id `("storage", class, key, device, length)`, whatever the
    /// device. Legacy files add `None`, or a part of another storage, which is refused.
    fn storage(&mut self, id: Value) -> Result<Value> {
        if let Some(
            &[kind, Value::Global(Global::Storage(dtype)), key, _, Value::Int(len)]
            | &[kind, Value::Global(Global::Storage(dtype)), key, _, Value::Int(len), Value::None],
        ) = self.pickle.items(id)
            && self.pickle.text(kind) == Some("storage")
            && let (Some(key), Ok(len)) = (self.pickle.text(key), usize::try_from(len))
        {
            let key = key.to_string();
            return Ok(self.add(Node::Storage(Storage { key, dtype, len })));
        }
        Err("the identity of a storage is malformed".into())
    }

    fn global(&mut self) -> Result<Value> {
        let (module, name) = (self.line()?, self.line()?);
        global(&module, &name)
    }

    fn stack_global(&mut self) -> Result<Value> {
        let names = self.pop_array::<2>()?.map(|name| self.pickle.text(name));
        let [Some(module), Some(name)] = names else { return Err("a global has no name".into()) };
        global(module, name)
    }

    fn append(&mut self, new: &[Value]) -> Result<()> {
        if let Some(Node::Items(items)) = self.top_node()? {
            items.extend(new);
        }
        Ok(())
    }

    fn insert(&mut self, new: &[Value]) -> Result<()> {
        if let Some(Node::Dict(held)) = self.top_node()? {
            held.extend(pairs(new));
        }
        Ok(())
    }

    fn remember(&mut self, at: u64) -> Result<()> {
        let value = self.top()?;
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<Value> {
        self.memo.get(&at).copied().ok_or_else(|| format!("memo entry {at} is not set"))
    }

    fn add(&mut self, node: Node) -> Value {
        self.pickle.nodes.push(node);
        Value::Node(self.pickle.nodes.len() - 1)
    }

    fn items(&mut self, items: Vec<Value>) -> Value {
        self.add(Node::Items(items))
    }

    /// The values above the innermost mark: what an opcode may take.
    fn height(&self) -> usize {
        self.stack.len() - self.marks.last().unwrap_or(&0)
    }

    fn top(&self) -> Result<Value> {
        self.stack.last().copied().ok_or_else(|| "the pickle's stack is empty".into())
    }

    fn top_node(&mut self) -> Result<Option<&mut Node>> {
        let Value::Node(index) = self.top()? else { return Ok(None) };
        Ok(self.pickle.nodes.get_mut(index))
    }

    fn pop(&mut self) -> Result<Value> {
        self.pop_array().map(|[value]| value)
    }

    fn pop_array<const N: usize>(&mut self) -> Result<[Value; N]> {
        let mut values = [Value::None; N];
        if self.height() < N {
            return Err("the pickle's stack is empty".into());
        }
        let at = self.stack.len() - N;
        values.copy_from_slice(&self.stack[at..]);
        self.stack.truncate(at);
        Ok(values)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let at = self.marks.pop().ok_or("the pickle's stack has no mark")?;
        Ok(self.stack.split_off(at))
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(|error| ended(&error))?;
        Ok(byte[0])
    }

    /// An unsigned little-endian number of at most 8 bytes.
    fn uint(&mut self, width: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes[..width]).map_err(|error| ended(&error))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// `read` applied to the length that comes first, in `width` bytes.
    fn sized(&mut self, width: usize, read: fn(&mut Self, u64) -> Result<Value>) -> Result<Value> {
        let len = self.uint(width)?;
        read(self, len)
    }

    fn unsigned(&mut self, width: usize) -> Result<Value> {
        self.uint(width).map(|number| Value::Int(number.cast_signed()))
    }

    /// A signed little-endian number; those beyond 64 bits count as [`Value::Other`].
    fn int(&mut self, len: u64) -> Result<Value> {
        if len > 8 {
            return self.other(len);
        }
        let bytes = self.bytes(len)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(&bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn string(&mut self, len: u64) -> Result<Value> {
        let text = String::from_utf8_lossy(&self.bytes(len)?).into_owned();
        Ok(self.add(Node::Text(text)))
    }

    fn other(&mut self, len: u64) -> Result<Value> {
        self.bytes(len).map(|_| Value::Other)
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.input.by_ref().take(len).read_to_end(&mut bytes).map_err(|error| ended(&error))?;
        if (bytes.len() as u64) < len {
            Err(ended(&io::ErrorKind::UnexpectedEof.into()))
        } else {
            Ok(bytes)
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                byte => line.push(byte),
            }
        }
    }
}

/// Alternate keys and values as pairs; a last key without a value is dropped.
fn pairs(values: &[Value]) -> Vec<(Value, Value)> {
    values.as_chunks().0.iter().map(|&[key, value]| (key, value)).collect()
}

fn ended(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the pickle ends early".into(),
        _ => format!("the pickle cannot be read: {error}"),
    }
}

/// What a pickle may mean by `module.name`.
fn global(module: &str, name: &str) -> Result<Value> {
    let global = match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_parameter") => Global::Parameter,
        ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
        ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
        ("torch", "CharStorage") => Global::Storage(Dtype::I8),
        ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
        ("torch", "IntStorage") => Global::Storage(Dtype::I32),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("torch", "Size" | "device" | "float16" | "bfloat16" | "float32" | "float64")
        | ("argparse", "Namespace")
        | (
            "pathlib" | "pathlib._local",
            "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath",
        )
        | ("_codecs", "encode")
        | ("copyreg" | "copy_reg", "_reconstructor")
        | ("datetime", "date" | "datetime" | "time" | "timedelta")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | (
            "builtins" | "__builtin__",
            "bool" | "int" | "float" | "complex" | "str" | "bytes" | "bytearray" | "list" | "tuple"
            | "dict" | "set" | "frozenset" | "range" | "slice" | "object",
        ) => Global::Other,
        _ if module.starts_with("torch.nn.modules") => {
            let advice = "save its state_dict() instead";
            return Err(format!("holds a whole module (`{module}.{name}`): {advice}"));
        }
        _ => return Err(format!("asks for `{module}.{name}`, which belongs to no checkpoint")),
    };
    Ok(Value::Global(global))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pickle: &[u8]) -> Result<Pickle> {
        Pickle::load(pickle)
    }

    #[test]
    fn keeps_the_order_of_a_dictionary() {
        // {"b": 1, "a": 2}
        let pickle = load(b"\x80\x02}(X\x01\0\0\0bK\x01X\x01\0\0\0aK\x02u.").unwrap();
        let pairs = pickle.dict(pickle.root()).unwrap();
        let keys: Vec<_> = pairs.iter().map(|&(key, _)| pickle.text(key).unwrap()).collect();
        assert_eq!(keys, ["b", "a"]);
        assert_eq!(pickle.get(pickle.root(), "a"), Some(Value::Int(2)));
    }

    #[test]
    fn reads_numbers_of_every_width() {
        for (pickle, value) in [
            (&b"J\xfe\xff\xff\xff."[..], Value::Int(-2)),
            (b"K\xff.", Value::Int(255)),
            (b"M\xff\xff.", Value::Int(65_535)),
            (b"\x8a\x00.", Value::Int(0)),
            (b"\x8a\x02\xff\x00.", Value::Int(255)),
            (b"\x8a\x01\xff.", Value::Int(-1)),
            (b"\x8a\x09\0\0\0\0\0\0\0\0\x01.", Value::Other),
        ] {
            assert_eq!(load(pickle).unwrap().root(), value);
        }
    }

    #[test]
    fn refuses_code_by_name_without_running_it() {
        for pickle in [
            &b"cposix\nsystem\n(X\x04\0\0\0truetR."[..],
            b"\x8c\x05posix\x8c\x06system\x93.",
            b"c__builtin__\ngetattr\n.",
            b"ctorch.utilz\n_rebuild_tensor_v2\n.",
        ] {
            assert!(load(pickle).unwrap_err().contains("belongs to no checkpoint"));
        }
        assert!(load(b"K\x01)R.").unwrap_err().contains("calls a value"));
        assert!(load(b"(S'true'\niposix\nsystem\n.").is_err());
    }

    #[test]
    fn every_cut_of_a_pickle_is_an_error() {
        let whole = b"\x80\x02}(X\x01\0\0\0bK\x01X\x01\0\0\0aG\0\0\0\0\0\0\0\0u.";
        assert!(load(whole).is_ok());
        for end in 0..whole.len() {
            assert!(load(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn underflow_and_unset_memo_are_errors() {
        for pickle in
            [&b"."[..], b"0.", b"a.", b"(.", b"K\x01(0.", b"t.", b"h\x05.", b"\x86.", b"q\0."]
        {
            assert!(load(pickle).is_err(), "{pickle:?}");
        }
    }

    #[test]
    fn claims_of_length_are_not_believed() {
        let claim = b"\x8d\xff\xff\xff\xff\xff\xff\xff\x3fabc.";
        assert!(load(claim).unwrap_err().contains("ends early"));
    }

    #[test]
    fn nesting_and_cycles_are_bounded() {
        let deep = [&b"]".repeat(100_000)[..], &b"a".repeat(99_999), b"."].concat();
        let pickle = load(&deep).unwrap();
        assert!(pickle.tensors(pickle.root()).unwrap_err().contains("too deep"));
        let cycle = load(b"]q\0h\0a.").unwrap();
        assert!(cycle.tensors(cycle.root()).is_err());
        assert!(load(&b"N".repeat(MAX_VALUES + 2)).unwrap_err().contains("more than"));
    }

    #[test]
    fn shared_containers_cannot_multiply_without_bound() {
        // Each list holds the one before ten times.
        let mut bytes = b"]q\0".to_vec();
        for _ in 0..30 {
            bytes.extend(b"0](");
            bytes.extend(b"h\0".repeat(10));
            bytes.extend(b"eq\0");
        }
        bytes.push(b'.');
        let pickle = load(&bytes).unwrap();
        assert!(pickle.tensors(pickle.root()).unwrap_err().contains("too often"));
    }
}
