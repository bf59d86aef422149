//! Promise: inside a crate no two files import each other, directly or in a longer circle.
//!
//! A file uses another where one of its paths (of an import, a call, a type) leads to an item that
//! the other defines. Re-exports are followed to the definition and are no use themselves. Code for
//! tests, and what stands within macros, does not count.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// The path of a module below its crate, such as `ops`, `conv2d`.
type Module = Vec<String>;

/// The modules of a crate that have a file of their own.
type Files = BTreeMap<Module, File>;

/// Longest chain of re-exports that is followed.
const MAX_DEPTH: usize = 16;

/// What a file of a crate imports and names.
#[derive(Default)]
struct File {
    /// The path that each imported name stands for.
    imports: BTreeMap<String, Vec<String>>,
    /// Imported names that are only passed on.
    exports: BTreeSet<String>,
    /// All paths beside those of imports.
    paths: BTreeSet<Vec<String>>,
}

impl File {
    fn import(&mut self, tree: &UseTree, path: &[String], passed_on: bool) {
        let step = |ident: &syn::Ident| [path, &[ident.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(outer) => {
                return self.import(&outer.tree, &step(&outer.ident), passed_on);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, path, passed_on));
            }
            UseTree::Glob(_) => return,
            UseTree::Name(name) if name.ident == "self" => (path.to_vec(), path.last().cloned()),
            UseTree::Name(name) => (step(&name.ident), Some(name.ident.to_string())),
            UseTree::Rename(name) => (step(&name.ident), Some(name.rename.to_string())),
        };
        let name = name.unwrap_or_default();
        if passed_on {
            self.exports.insert(name.clone());
        }
        self.imports.insert(name, path);
    }
}

impl<'ast> Visit<'ast> for File {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.insert(path.segments.iter().map(|part| part.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.import(&item.tree, &[], false);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        let condition = attribute.meta.require_list().map(|list| list.tokens.to_string());
        attribute.path().is_ident("cfg") && condition.is_ok_and(|condition| condition == "test")
    };
    attributes.iter().any(is_test)
}

/// Reads the file at `path`, which is `module`, and those of the modules in it.
fn read(path: &Path, module: Module, files: &mut Files) {
    let syntax = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
    let folder = match path.file_name().unwrap().to_str().unwrap() {
        "mod.rs" | "lib.rs" | "main.rs" => path.parent().unwrap().to_path_buf(),
        _ => path.with_extension(""),
    };
    let mut file = File::default();
    for item in &syntax.items {
        match item {
            Item::Mod(inner) if is_test(&inner.attrs) => {}
            Item::Mod(inner) if inner.content.is_none() => {
                let name = inner.ident.to_string();
                let flat = folder.join(format!("{name}.rs"));
                let path = if flat.exists() { flat } else { folder.join(&name).join("mod.rs") };
                read(&path, [&module[..], &[name]].concat(), files);
            }
            Item::Use(item) if !is_test(&item.attrs) => {
                let passed_on = !matches!(item.vis, Visibility::Inherited);
                file.import(&item.tree, &[], passed_on);
            }
            Item::Use(_) => {}
            other => file.visit_item(other),
        }
    }
    files.insert(module, file);
}

/// The module whose file defines what `path` means in the module `from`; `None` for what is of
/// another crate or local, and for a module by itself.
fn definition(files: &Files, from: &Module, path: &[String], depth: usize) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    if depth > MAX_DEPTH {
        return None;
    }
    let child =
        |module: &Module, name: &String| [&module[..], core::slice::from_ref(name)].concat();
    let mut at = match first.as_str() {
        "crate" => Vec::new(),
        "self" => from.clone(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        _ => match files[from].imports.get(first) {
            Some(import) if *import == [first.clone()] => return None,
            Some(import) => {
                return definition(files, from, &[import, rest].concat(), depth + 1);
            }
            None => Some(child(from, first)).filter(|child| files.contains_key(child))?,
        },
    };
    for (i, name) in rest.iter().enumerate() {
        let inner = child(&at, name);
        if name == "super" {
            at.pop();
        } else if files.contains_key(&inner) {
            at = inner;
        } else if let Some(import) = files[&at].imports.get(name) {
            let path = [import, &rest[i + 1..]].concat();
            return definition(files, &at, &path, depth + 1).or(Some(at));
        } else {
            return Some(at);
        }
    }
    None
}

/// The circles of the crate whose first file is at `root`: files that all reach each other, or folders
/// of the crate, where modules are told apart by the first `depth` parts of their paths only.
fn circles(root: &Path, depth: usize) -> Vec<Vec<String>> {
    let mut files = Files::new();
    read(root, Module::new(), &mut files);
    let cut = |module: &Module| module[..module.len().min(depth)].to_vec();
    let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, file) in &files {
        let imports = file.imports.iter().filter(|(name, _)| !file.exports.contains(*name));
        let paths = imports.map(|(_, path)| path).chain(&file.paths);
        let used = paths.filter_map(|path| definition(&files, module, path, 0));
        let used = used.map(|used| cut(&used)).filter(|used| *used != cut(module));
        uses.entry(cut(module)).or_default().extend(used);
    }
    let reach = |module: &Module| {
        let (mut reached, mut todo) = (BTreeSet::new(), vec![module]);
        while let Some(next) = todo.pop() {
            todo.extend(uses[next].iter().filter(|&used| reached.insert(used.clone())));
        }
        (module.clone(), reached)
    };
    let reached: BTreeMap<Module, BTreeSet<Module>> = uses.keys().map(reach).collect();
    let circle = |module: &Module| -> Vec<String> {
        let mutual = reached[module].iter().filter(|other| reached[*other].contains(module));
        mutual.map(|other| other.join("::")).collect()
    };
    let circles: BTreeSet<_> = uses.keys().map(circle).filter(|all| !all.is_empty()).collect();
    circles.into_iter().collect()
}

#[test]
fn no_two_files_import_each_other() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for root in ["quant-core/src/lib.rs", "fm-candle/src/lib.rs", "host/src/lib.rs"] {
        assert_eq!(circles(&crates.join(root), usize::MAX), Vec::<Vec<String>>::new(), "{root}");
    }
}

#[test]
fn no_two_folders_of_the_libraries_import_each_other() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for root in ["quant-core/src/lib.rs", "fm-candle/src/lib.rs"] {
        assert_eq!(circles(&crates.join(root), 1), Vec::<Vec<String>>::new(), "{root}");
    }
}

#[test]
fn circles_are_found_through_re_exports_and_calls() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("lib.rs", "mod a; mod b; mod c; pub use c::C; pub use a::A;");
    write("a.rs", "use crate::C; pub struct A; fn f() { crate::b::f() }");
    write("b.rs", "pub fn f() {} #[cfg(test)] mod tests { use crate::a::A; }");
    write("c.rs", "pub struct C;");
    let root = dir.path().join("lib.rs");
    assert!(circles(&root, usize::MAX).is_empty());
    write("c.rs", "pub struct C(super::A);");
    assert_eq!(circles(&root, usize::MAX), [["a", "c"]]);
    write("b.rs", "use super::c; pub fn f(_: c::C) {}");
    assert_eq!(circles(&root, usize::MAX), [["a", "b", "c"]]);
}
