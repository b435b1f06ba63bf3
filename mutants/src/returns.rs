//! What a function can return without doing anything.

use quote::ToTokens;
use syn::{GenericArgument, PathArguments, Type};

/// Simple values of a type; none for types of which nothing is known.
pub fn values(output: &Type) -> Vec<String> {
    match output {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec!["()".into()],
        Type::Tuple(tuple) => {
            let each: Option<Vec<String>> =
                tuple.elems.iter().map(|item| values(item).into_iter().next()).collect();
            each.map(|each| vec![format!("({})", each.join(", "))]).unwrap_or_default()
        }
        Type::Array(array) => vec![format!("[0; {}]", array.len.to_token_stream())],
        Type::Reference(inner) if inner.mutability.is_none() => match &*inner.elem {
            Type::Slice(_) => vec!["&[]".into()],
            Type::Path(path) if path.path.is_ident("str") => vec!["\"\"".into()],
            _ => Vec::new(),
        },
        Type::Path(path) => named(&path.path),
        _ => Vec::new(),
    }
}

fn named(path: &syn::Path) -> Vec<String> {
    let Some(last) = path.segments.last() else { return Vec::new() };
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(inner) => Some(values(inner)),
                _ => None,
            })
        }
        _ => None,
    };
    match last.ident.to_string().as_str() {
        "bool" => vec!["true".into(), "false".into()],
        "u8" | "u16" | "u32" | "u64" | "usize" => vec!["0".into(), "1".into()],
        "String" => vec!["String::new()".into()],
        "Vec" => vec!["Vec::new()".into()],
        "Range" => vec!["0..0".into()],
        "Option" => {
            let some = inner.unwrap_or_default().into_iter().map(|value| format!("Some({value})"));
            some.chain(["None".into()]).collect()
        }
        // `fmt::Result`.
        "Result" => match inner {
            None => vec!["Ok(())".into()],
            Some(values) => values.into_iter().map(|value| format!("Ok({value})")).collect(),
        },
        _ => Vec::new(),
    }
}
