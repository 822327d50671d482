//! The floor plan, held: `src/lib.rs` declares the modules ground first, and a file names only those above its own.
//!
//! The checks read tokens, not lines: comments and literals are gone before anything is looked for, so prose and doc
//! links may name what they like. The reader itself is tried on made-up sources at the end of this file.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on says so and stops"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The one file that may say `unsafe`.
const UNSAFE_ISLAND: &str = "src/net/sockopt.rs";
/// A longer file holds more than one noun.
const LONGEST_FILE: usize = 600;
/// What a visitor sees first, all of it.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "benches",
    "config",
    "examples",
    "src",
    "tests",
];

#[test]
fn a_file_names_only_modules_declared_above_its_own() {
    let floors = declared_modules(&read("src/lib.rs"));
    let (mut complaints, mut imports) = (Vec::new(), 0);
    for file in sources() {
        let Some(module) = module_of(&file) else { continue };
        let found = names_of_modules(&tokens(&read(&file)), module_depth(&file));
        imports += found.len();
        complaints.extend(upward(&floors, &module, &found).into_iter().map(|complaint| format!("{file}:{complaint}")));
    }
    assert!(imports >= 1, "no import was seen: the reader is broken");
    assert!(complaints.is_empty(), "src/lib.rs declares the floors, ground first:\n{}", complaints.join("\n"));
}

#[test]
fn every_module_is_declared_on_the_map_and_every_declaration_has_its_module() {
    let mut declared = declared_modules(&read("src/lib.rs"));
    let mut present: Vec<String> = sources().iter().filter_map(|file| module_of(file)).collect();
    declared.sort();
    present.sort();
    present.dedup();
    assert!(declared.len() >= 5, "only {declared:?} were read from src/lib.rs");
    assert_eq!(present, declared, "left: what is in src, right: what src/lib.rs declares");
}

#[test]
fn every_declaration_on_the_map_says_in_one_line_what_the_module_is() {
    let map = read("src/lib.rs");
    let declarations: Vec<&str> = map.lines().filter(|line| line.starts_with("pub mod ")).collect();
    assert_eq!(
        declarations.len(),
        declared_modules(&map).len(),
        "a module of src/lib.rs stands on its own `pub mod` line"
    );
    for line in declarations {
        assert!(has_one_comment(line), "`{line}` lacks its comment, or has picked up another one's");
    }
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let files = sources();
    assert!(files.len() >= 10, "only {} files were seen", files.len());
    for file in files {
        assert!(read(&file).starts_with("//!"), "{file} does not open with `//!`");
    }
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let lengths: Vec<(String, usize)> =
        sources().into_iter().map(|file| (file.clone(), read(&file).lines().count())).collect();
    assert!(lengths.iter().map(|(_, lines)| lines).sum::<usize>() >= 500, "hardly a line was seen");
    for (file, lines) in lengths {
        assert!(lines <= LONGEST_FILE, "{file} has {lines} lines; {LONGEST_FILE} are the most");
    }
}

#[test]
fn unsafe_is_said_on_its_island_alone() {
    let files = sources();
    assert!(files.len() >= 10, "only {} files were seen", files.len());
    for file in files.iter().filter(|file| *file != UNSAFE_ISLAND) {
        if let Some(token) = tokens(&read(file)).iter().find(|token| token.is("unsafe")) {
            panic!("{file}:{} says `unsafe`; only {UNSAFE_ISLAND} may", token.line);
        }
    }
}

#[test]
fn the_top_of_the_repository_holds_what_the_floor_plan_says_and_nothing_else() {
    let there = top_level();
    assert_eq!(there, TOP_LEVEL, "left: what is there, right: the floor plan");
}

// The rules, as functions of what was read.

/// The complaints about a file of `module` that names `found`, each opening with its line.
fn upward(floors: &[String], module: &str, found: &[Named]) -> Vec<String> {
    let floor = |name: &str| floors.iter().position(|declared| declared == name);
    let own = floor(module);
    let mut complaints = Vec::new();
    for Named { line, name } in found {
        match floor(name) {
            Some(named) if own.is_some_and(|own| named <= own) => {}
            Some(_) => {
                complaints.push(format!("{line}: `{module}` names `{name}`, which src/lib.rs declares below it"))
            }
            None => {
                complaints.push(format!("{line}: `{module}` names `crate::{name}`, which is no module of src/lib.rs"))
            }
        }
    }
    complaints
}

/// The modules src/lib.rs declares, in its order.
fn declared_modules(map: &str) -> Vec<String> {
    tokens(map)
        .windows(3)
        .filter(|three| three[0].is("mod") && three[2].is(";"))
        .map(|three| three[1].text.clone())
        .collect()
}

/// Whether a declaration is followed by one comment, and not by a second one that a formatter has moved there.
fn has_one_comment(line: &str) -> bool {
    let comments: Vec<&str> = line.split("//").skip(1).collect();
    matches!(comments.as_slice(), [only] if !only.trim().is_empty())
}

/// The module of src/lib.rs that a file belongs to; the map itself and the program may name everything.
fn module_of(file: &str) -> Option<String> {
    if matches!(file, "src/lib.rs" | "src/main.rs") {
        return None;
    }
    let inside = file.strip_prefix("src/").unwrap_or(file);
    let (module, _) = inside.split_once('/').or_else(|| inside.split_once('.'))?;
    Some(module.to_owned())
}

/// How many `super` lead from a file to the root of the crate.
fn module_depth(file: &str) -> usize {
    let path = file.strip_prefix("src/").unwrap_or(file);
    path.trim_end_matches("/mod.rs").split('/').count()
}

// The reader.

/// A word or a mark of Rust, and its line.
#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }

    fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// A module named by its path from the root of the crate, and where. `*` and `self` stand for the root as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    line: usize,
    name: String,
}

/// The modules that a file names through `crate::` or through as many `super::` as lead to the root.
fn names_of_modules(tokens: &[Token], depth: usize) -> Vec<Named> {
    let mut found = Vec::new();
    let (mut braces, mut inline) = (0_usize, Vec::new());
    for (i, token) in tokens.iter().enumerate() {
        let inside_a_path = i > 0 && tokens[i - 1].is("::");
        match token.text.as_str() {
            "{" => {
                braces += 1;
                if i >= 2 && tokens[i - 2].is("mod") {
                    inline.push(braces);
                }
            }
            "}" => {
                inline.pop_if(|opened| *opened == braces);
                braces = braces.saturating_sub(1);
            }
            // `$crate::…` in a macro is the same path; `pub(crate)` is none.
            "crate" => match tokens.get(i + 1) {
                Some(next) if next.is("::") => heads(tokens, i + 2, 0, &mut found),
                Some(next) if next.is("as") => found.push(Named { line: token.line, name: "self".to_owned() }),
                _ => {}
            },
            "super" | "self" if !inside_a_path => heads(tokens, i, depth + inline.len(), &mut found),
            _ => {}
        }
    }
    found
}

/// Follows a path, or each path of a group, from `depth` modules below the root, and keeps the first name below that.
fn heads(tokens: &[Token], mut i: usize, mut depth: usize, found: &mut Vec<Named>) {
    while let Some(token) = tokens.get(i) {
        let goes_on = tokens.get(i + 1).is_some_and(|next| next.is("::"));
        match token.text.as_str() {
            "{" => return group(tokens, i + 1, depth, found),
            "super" if goes_on => depth = depth.saturating_sub(1),
            "self" if goes_on => {}
            _ if depth > 0 => return,
            _ if token.is_word() || token.is("*") => {
                return found.push(Named { line: token.line, name: token.text.clone() });
            }
            _ => return,
        }
        i += 2;
    }
}

/// Follows each path of the group whose first one begins at `i`.
fn group(tokens: &[Token], mut i: usize, depth: usize, found: &mut Vec<Named>) {
    let (mut nesting, mut begins) = (1_usize, true);
    while let Some(token) = tokens.get(i) {
        if nesting == 1 && begins {
            heads(tokens, i, depth, found);
        }
        begins = false;
        match token.text.as_str() {
            "{" => nesting += 1,
            "}" if nesting == 1 => return,
            "}" => nesting -= 1,
            "," => begins = true,
            _ => {}
        }
        i += 1;
    }
}

/// Splits Rust into words and marks; comments and literals leave nothing.
fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut line, mut i) = (Vec::new(), 1, 0);
    while i < text.len() {
        let from = i;
        match at(i) {
            '/' if at(i + 1) == '/' => i = (i..text.len()).find(|&end| at(end) == '\n').unwrap_or(text.len()),
            '/' if at(i + 1) == '*' => i = after_block_comment(&text, i),
            '"' => i = after_string(&text, i),
            // A character if a quote closes it, else a lifetime or a label, of which the quote alone is dropped.
            '\'' if at(i + 1) == '\\' => i = after_escaped_character(&text, i),
            '\'' if at(i + 2) == '\'' => i += 3,
            ':' if at(i + 1) == ':' => {
                tokens.push(Token { text: "::".to_owned(), line });
                i += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = text[from..i].iter().collect();
                let hashes = (i..text.len()).take_while(|&hash| at(hash) == '#').count();
                match word.as_str() {
                    "r" | "br" | "cr" if at(i + hashes) == '"' => i = after_raw_string(&text, i + hashes, hashes),
                    "b" | "c" if at(i) == '"' => i = after_string(&text, i),
                    "r" if hashes == 1 => i += 1,
                    _ => tokens.push(Token { text: word, line }),
                }
            }
            c => {
                if !c.is_whitespace() && c != '\'' {
                    tokens.push(Token { text: c.to_string(), line });
                }
                i += 1;
            }
        }
        line += text[from..i.min(text.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn after_block_comment(text: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0_usize, from);
    while i < text.len() {
        match text.get(i..i + 2) {
            Some(['/', '*']) => (depth, i) = (depth + 1, i + 2),
            Some(['*', '/']) if depth == 1 => return i + 2,
            Some(['*', '/']) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    i
}

fn after_string(text: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn after_raw_string(text: &[char], from: usize, hashes: usize) -> usize {
    let closes =
        |i: usize| text[i] == '"' && text[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (from + 1..text.len()).find(|&i| closes(i)).map_or(text.len(), |i| i + 1 + hashes)
}

fn after_escaped_character(text: &[char], from: usize) -> usize {
    (from + 3..text.len()).find(|&i| text[i] == '\'').map_or(text.len(), |i| i + 1)
}

// The repository.

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every Rust file below src, by its path from the root of the repository.
fn sources() -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::from("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of src can be listed") {
            let entry = entry.expect("an entry of src can be read");
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.to_str().expect("the names in src are UTF-8").to_owned());
            }
        }
    }
    files.sort();
    files
}

/// The visible top of the repository: what git tracks, or, where there is no git, what lies there and is not built.
fn top_level() -> Vec<String> {
    let tracked = Command::new("git").arg("-C").arg(root()).arg("ls-files").output();
    let mut names: Vec<String> = match tracked {
        Ok(listing) if listing.status.success() && !listing.stdout.is_empty() => {
            let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
            listing.lines().filter_map(|path| path.split('/').next().map(str::to_owned)).collect()
        }
        _ => fs::read_dir(root())
            .expect("the top of the repository can be listed")
            .map(|entry| entry.expect("an entry can be read").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "target")
            .collect(),
    };
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names.dedup();
    names
}

// The reader and the rules, tried on made-up sources.

fn named(source: &str, depth: usize) -> Vec<String> {
    names_of_modules(&tokens(source), depth).into_iter().map(|named| named.name).collect()
}

fn words(source: &str) -> Vec<String> {
    tokens(source).into_iter().map(|token| token.text).collect()
}

#[test]
fn a_module_is_seen_in_a_plain_import_in_an_expression_and_in_a_macro() {
    assert_eq!(named("use crate::net::dial; fn f() { crate::pool::pick() }", 1), ["net", "pool"]);
    assert_eq!(named("macro_rules! m { () => { $crate::task::spawn() } }", 1), ["task"]);
    assert_eq!(named("pub use crate :: r#relay :: Report;", 1), ["relay"]);
}

#[test]
fn every_module_of_a_group_is_seen_and_nothing_below_it() {
    let source = "use crate::{
        net::{address::{BindAddr, ServerAddr}, dial},
        pool, // why
        {units::{self, Name}, app},
    };";
    assert_eq!(named(source, 1), ["net", "pool", "units", "app"]);
    assert_eq!(named("use {std::fmt, crate::{proxy::tcp}, crate::pool::Lease};", 1), ["proxy", "pool"]);
}

#[test]
fn a_module_is_seen_through_super_when_that_leads_to_the_root() {
    assert_eq!(named("use super::proxy;", 1), ["proxy"]);
    assert_eq!(named("use super::raw; use super::super::{app, cli::Run};", 2), ["app", "cli"]);
    assert_eq!(named("use super::{raw, super::app};", 2), ["app"]);
    assert_eq!(named("use self::super::app;", 1), ["app"]);
    assert_eq!(named("mod tests { use super::*; use super::super::app; } use super::pool;", 1), ["app", "pool"]);
    assert_eq!(named("fn f() { if a { b() } } mod tests { fn f() { self::g() } }", 1), [""; 0]);
}

#[test]
fn the_root_as_a_whole_is_a_name_nobody_may_use() {
    let floors = ["net".to_owned(), "app".to_owned()];
    for source in
        ["use crate::*;", "use crate as root;", "use crate::{self as root};", "use super::*;", "use crate::Reexported;"]
    {
        let found = names_of_modules(&tokens(source), 1);
        assert_eq!(upward(&floors, "app", &found).len(), 1, "{source}: {found:?}");
    }
}

#[test]
fn an_import_from_above_is_a_complaint_with_its_line_and_one_from_below_is_none() {
    let floors = ["units", "net", "pool", "proxy"].map(str::to_owned);
    let found = names_of_modules(&tokens("use crate::{\n  net,\n  units,\n  proxy::tcp,\n  pool::Lease,\n};"), 1);
    assert_eq!(upward(&floors, "pool", &found), ["4: `pool` names `proxy`, which src/lib.rs declares below it"]);
    assert_eq!(upward(&floors, "proxy", &found), [""; 0]);
    assert_eq!(upward(&floors, "elsewhere", &found).len(), 4, "a module that is not on the map may name nothing");
}

#[test]
fn comments_and_literals_name_nothing() {
    let source = r####"
        //! [`crate::proxy`]
        /// unsafe crate::app /* not a block
        /* crate::app /* nested */ unsafe crate::app */
        fn f<'a>(x: &'a str) -> char {
            let _ = ("crate::app \" unsafe", r#"crate::app " unsafe"#, b"unsafe", br"unsafe", c"unsafe", "\\");
            'crate: loop { break 'crate }
            let (_, _, _) = ('"', '\'', '\u{1F600}');
            x // "crate::app
        }
    "####;
    assert_eq!(named(source, 1), [""; 0]);
    assert!(!words(source).iter().any(|word| word == "unsafe"), "{:?}", words(source));
    assert_eq!(words(source).last().map(String::as_str), Some("}"), "the end of the source was not reached");
    assert_eq!(words("x/**/y// z\n'a' 'b /"), ["x", "y", "b", "/"]);
}

#[test]
fn code_beside_comments_and_literals_is_still_read() {
    assert_eq!(named("/* a */ use crate::net; // crate::app\nlet x = ('\\'', crate::pool::A);", 1), ["net", "pool"]);
    assert_eq!(named("let url = \"http://x\"; crate::pool::pick()", 1), ["pool"]);
    assert_eq!(words("unsafe { x }"), ["unsafe", "{", "x", "}"]);
    assert_eq!(tokens("/* 1\n2 */ \"3\n4\"\nunsafe").first().map(|token| token.line), Some(4));
}

#[test]
fn the_map_is_read_in_its_order_and_without_what_is_commented_out() {
    let map = "//! pub mod no;
        pub mod units; // durations
        // pub mod task; // later
        #[cfg(test)]
        mod scripted;
        pub mod net;
        mod inline { fn f() {} }";
    assert_eq!(declared_modules(map), ["units", "scripted", "net"]);
    assert!(has_one_comment("pub mod units; // durations"));
    for line in ["pub mod units;", "pub mod units; //", "pub mod units; // durations // addresses"] {
        assert!(!has_one_comment(line), "{line}");
    }
}

#[test]
fn a_file_belongs_to_the_module_its_path_says() {
    for (file, module, depth) in [
        ("src/pool.rs", "pool", 1),
        ("src/net/mod.rs", "net", 1),
        ("src/net/dial.rs", "net", 2),
        ("src/a/b/mod.rs", "a", 2),
    ] {
        assert_eq!((module_of(file).as_deref(), module_depth(file)), (Some(module), depth), "{file}");
    }
    assert_eq!((module_of("src/lib.rs"), module_of("src/main.rs")), (None, None));
}
