//! YAML as PyYAML's safe dump writes it, as plain values: no tags, nothing is made of what a text says.
//!
//! Depth and the number of values are bounded; an alias stands for small values alone, so that a short text is never a large tree.

use std::collections::HashMap;
use std::sync::Arc;

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::TScalarStyle;

use crate::value::Value;

/// Deeper than any configuration.
const MAX_DEPTH: usize = 64;

/// Values in what an alias may stand for.
const MAX_ALIASED: usize = 4096;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A text, a number, a truth or nothing.
    Scalar(Value),
    /// A sequence.
    List(Vec<Arc<Node>>),
    /// A mapping whose keys are texts; keys of other kinds are left out.
    Map(Vec<(String, Arc<Node>)>),
}

impl Node {
    /// The value under this key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Self::Map(items) => items.iter().find(|(name, _)| name == key).map(|(_, node)| &**node),
            _ => None,
        }
    }

    /// Whether it is a mapping with no keys but these.
    pub(super) fn has_only(&self, keys: &[&str]) -> bool {
        matches!(self, Self::Map(items) if items.iter().all(|(name, _)| keys.contains(&name.as_str())))
    }

    /// A plain value, or a list of plain values.
    pub(super) fn value(&self) -> Option<Value> {
        match self {
            Self::Scalar(value) => Some(value.clone()),
            Self::List(items) => {
                let plain = |item: &Arc<Node>| match &**item {
                    Self::Scalar(value) => Some(value.clone()),
                    _ => None,
                };
                Some(Value::List(items.iter().map(plain).collect::<Option<Vec<_>>>()?.into()))
            }
            Self::Map(_) => None,
        }
    }

    fn count(&self) -> usize {
        let inner: usize = match self {
            Self::Scalar(_) => 0,
            Self::List(items) => items.iter().map(|item| item.count()).sum(),
            Self::Map(items) => items.iter().map(|(_, item)| item.count()).sum(),
        };
        inner.saturating_add(1)
    }
}

/// What is being read: a sequence, or a mapping with the key that waits for its value.
enum Open {
    List(Vec<Arc<Node>>),
    Map(Vec<(String, Arc<Node>)>, Option<Option<String>>),
}

/// Reads the first document.
pub(super) fn decode(text: &str) -> Result<Node, String> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut anchors: HashMap<usize, (Arc<Node>, usize)> = HashMap::new();
    loop {
        let (event, mark) = parser.next_token().map_err(|error| error.to_string())?;
        let wrong = |what: &str| Err(format!("line {}: {what}", mark.line()));
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (Arc::new(Node::Scalar(scalar(&text, style))), anchor),
            Event::SequenceStart(anchor, _) => {
                open.push((Open::List(Vec::new()), anchor));
                if open.len() > MAX_DEPTH {
                    return wrong("nested too deeply");
                }
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push((Open::Map(Vec::new(), None), anchor));
                if open.len() > MAX_DEPTH {
                    return wrong("nested too deeply");
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((Open::List(items), anchor)) => (Arc::new(Node::List(items)), anchor),
                Some((Open::Map(items, _), anchor)) => (Arc::new(Node::Map(items)), anchor),
                None => return wrong("an end without a beginning"),
            },
            Event::Alias(id) => match anchors.get(&id) {
                Some((node, count)) if *count <= MAX_ALIASED => (node.clone(), 0),
                Some(_) => return wrong("an alias of a large value"),
                None => return wrong("an alias of nothing"),
            },
            Event::StreamEnd => return wrong("there is nothing in it"),
            Event::Nothing | Event::StreamStart | Event::DocumentStart | Event::DocumentEnd => continue,
        };
        if anchor > 0 {
            let count = node.count();
            anchors.insert(anchor, (node.clone(), count));
        }
        match open.last_mut() {
            None => return Ok(Node::clone(&node)),
            Some((Open::List(items), _)) => items.push(node),
            Some((Open::Map(items, key), _)) => match key.take() {
                None => *key = Some(text_of(&node)),
                Some(Some(name)) => items.push((name, node)),
                Some(None) => {}
            },
        }
    }
}

fn text_of(node: &Node) -> Option<String> {
    match node {
        Node::Scalar(Value::Str(text)) => Some(text.to_string()),
        _ => None,
    }
}

/// What a plain text stands for, by the rules of YAML 1.1 that PyYAML has; of quoted ones it is the text.
fn scalar(text: &str, style: TScalarStyle) -> Value {
    if style != TScalarStyle::Plain {
        return Value::str(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::None,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "on" | "On" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "off" | "Off" => return Value::Bool(false),
        ".inf" | ".Inf" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let plain = text.replace('_', "");
    if let Ok(number) = plain.parse::<i64>() {
        return Value::Int(number);
    }
    let is_number = plain.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    match plain.parse::<f64>() {
        Ok(number) if is_number => Value::Float(number),
        _ => Value::str(text),
    }
}
