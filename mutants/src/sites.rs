//! Where code can be changed, and how: every mutant of one file.
//!
//! Left out: patterns, constants and `const fn` (a switch cannot stand there), what macros hold (but for `vec!`), tests.

use std::ops::Range;

use proc_macro2::{LineColumn, Span};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ExprLit, Lit, ReturnType, Stmt, UnOp};

use crate::returns;

/// One change of the code.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// Line in the source file, from 1.
    pub line: usize,
    /// The function it is in.
    pub function: String,
    /// What is changed, as it stands there and then.
    pub change: String,
    /// How the switch is put in.
    pub edit: Edit,
}

/// Text around a range of the file, with `{on}` where the switch is asked.
#[derive(Debug, Clone)]
pub enum Edit {
    /// The expression in this range gives way to another one.
    Replace(Range<usize>, String),
    /// The statement in this range is left out.
    Omit(Range<usize>),
    /// At this byte, the beginning of a function, it returns.
    Return(usize, String),
}

/// Every mutant of a file, in no particular order.
pub fn find(text: &str) -> syn::Result<Vec<Mutant>> {
    let file = syn::parse_file(text)?;
    let mut lines = vec![0];
    lines.extend(text.match_indices('\n').map(|(at, _)| at + 1));
    let mut finder = Finder { text, lines, path: Vec::new(), mutants: Vec::new() };
    finder.visit_file(&file);
    Ok(finder.mutants)
}

struct Finder<'a> {
    text: &'a str,
    /// First byte of each line.
    lines: Vec<usize>,
    /// Type and function that are being walked.
    path: Vec<String>,
    mutants: Vec<Mutant>,
}

impl Finder<'_> {
    /// Spans count characters in a line, files have bytes.
    fn byte(&self, at: LineColumn) -> usize {
        let start = self.lines[at.line - 1];
        let before: usize = self.text[start..].chars().take(at.column).map(char::len_utf8).sum();
        start + before
    }

    fn range(&self, span: Span) -> Range<usize> {
        self.byte(span.start())..self.byte(span.end())
    }

    fn add(&mut self, span: Span, change: String, edit: Edit) {
        let function = self.path.join("::");
        self.mutants.push(Mutant { line: span.start().line, function, change, edit });
    }

    /// `node` gives way to `other`.
    fn replace(&mut self, node: &impl Spanned, other: String) {
        let range = self.range(node.span());
        let change = format!("{} -> {}", plain(&self.text[range.clone()]), plain(&other));
        self.add(node.span(), change, Edit::Replace(range, other));
    }

    fn negate(&mut self, condition: &Expr) {
        if !matches!(
            condition,
            Expr::Binary(_) | Expr::Unary(_) | Expr::Let(_) | Expr::Block(_) | Expr::Lit(_)
        ) {
            self.replace(condition, format!("!({})", condition.to_token_stream()));
        }
    }

    fn function(&mut self, name: String, signature: &syn::Signature, block: &syn::Block) {
        if signature.constness.is_some() {
            return;
        }
        self.path.push(name);
        let values = match &signature.output {
            ReturnType::Default => vec![String::new()],
            ReturnType::Type(_, output) => returns::values(output),
        };
        let body = self.range(block.brace_token.span.open()).end;
        let whole = &self.text[self.range(block.span())];
        for value in values.into_iter().filter(|value| whole.trim_matches(['{', '}', ' ', '\n']) != value) {
            let change = format!("return {value}");
            self.add(signature.ident.span(), change.trim_end().to_owned(), Edit::Return(body, value));
        }
        visit::visit_block(self, block);
        self.path.pop();
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_macro(&mut self, _: &'ast syn::ItemMacro) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !item.attrs.iter().any(|attribute| attribute.path().is_ident("cfg")) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let debug = |path: &syn::Path| path.segments.last().is_some_and(|last| last.ident == "Debug");
        if item.trait_.as_ref().is_some_and(|(_, path, _)| debug(path)) {
            return;
        }
        let name = item.self_ty.to_token_stream().to_string();
        self.path.push(name.split(' ').next().unwrap_or_default().to_owned());
        visit::visit_item_impl(self, item);
        self.path.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(item.sig.ident.to_string(), &item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(item.sig.ident.to_string(), &item.sig, block);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(item.sig.ident.to_string(), &item.sig, &item.block);
    }

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(expr, Some(_)) = stmt
            && has_effect(expr)
        {
            let range = self.range(stmt.span());
            let change = format!("without {}", plain(&self.text[range.clone()]));
            self.add(stmt.span(), change, Edit::Omit(range));
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let Some(init) = &local.init else { return };
        self.visit_expr(&init.expr);
        if let Some((_, other)) = &init.diverge {
            let Expr::Block(block) = &**other else { return self.visit_expr(other) };
            // What ends the block must stay: it may not be left otherwise.
            if let Some((last, before)) = block.block.stmts.split_last() {
                before.iter().for_each(|stmt| self.visit_stmt(stmt));
                visit::visit_stmt(self, last);
            }
        }
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) if !has_let(expr) => {
                let (left, right) = (binary.left.to_token_stream(), binary.right.to_token_stream());
                for operator in operators(&binary.op) {
                    self.replace(expr, format!("({left}) {operator} ({right})"));
                }
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) && !has_let(expr) => {
                self.replace(expr, unary.expr.to_token_stream().to_string());
            }
            Expr::Lit(ExprLit { lit, .. }) => {
                for other in literals(lit) {
                    self.replace(expr, other);
                }
            }
            Expr::MethodCall(call) => self.method(expr, call),
            Expr::If(branch) => self.negate(&branch.cond),
            Expr::While(branch) => self.negate(&branch.cond),
            Expr::Macro(inner) if inner.mac.path.is_ident("matches") => self.negate(expr),
            Expr::Macro(inner) if inner.mac.path.is_ident("vec") => self.vector(&inner.mac),
            Expr::Match(choice) => self.arms(choice),
            Expr::Closure(closure) => {
                // Parameters are patterns.
                self.visit_expr(&closure.body);
                return;
            }
            Expr::Repeat(repeat) => {
                // The number is a constant.
                self.visit_expr(&repeat.expr);
                return;
            }
            Expr::Const(_) => return,
            _ => {}
        }
        visit::visit_expr(self, expr);
    }
}

impl Finder<'_> {
    fn method(&mut self, expr: &Expr, call: &syn::ExprMethodCall) {
        let name = call.method.to_string();
        let (receiver, arguments) = (call.receiver.to_token_stream(), call.args.to_token_stream());
        for (from, to) in METHODS {
            if name == *from && call.turbofish.is_none() {
                let change = format!(
                    "{from}(..) -> {to}(..) of {}",
                    plain(&self.text[self.range(call.receiver.span())])
                );
                let edit = Edit::Replace(self.range(expr.span()), format!("({receiver}).{to}({arguments})"));
                self.add(call.method.span(), change, edit);
            }
        }
        if CHOOSING.contains(&name.as_str())
            && let Some(Expr::Closure(closure)) = call.args.last()
        {
            self.negate(&closure.body);
        }
    }

    fn vector(&mut self, inner: &syn::Macro) {
        use syn::parse::Parser;
        let list = syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated;
        if let Ok(items) = list.parse2(inner.tokens.clone()) {
            // Not `visit`: the tree lives only here, and spans are all that is kept of it.
            let mut inner = Finder {
                text: self.text,
                lines: self.lines.clone(),
                path: self.path.clone(),
                mutants: Vec::new(),
            };
            items.iter().for_each(|item| inner.visit_expr(item));
            self.mutants.append(&mut inner.mutants);
        }
    }

    fn arms(&mut self, choice: &syn::ExprMatch) {
        let last = choice.arms.last().map(|arm| &arm.pat);
        let catches_all = matches!(last, Some(syn::Pat::Wild(_)))
            || matches!(last, Some(syn::Pat::Ident(ident)) if ident.subpat.is_none() && ident.ident.to_string().starts_with(char::is_lowercase));
        for (index, arm) in choice.arms.iter().enumerate() {
            if let Some((_, guard)) = &arm.guard {
                if !has_let(guard) {
                    self.replace(&**guard, "true".into());
                    self.replace(&**guard, "false".into());
                }
            } else if catches_all && index + 1 < choice.arms.len() {
                let end = self.range(arm.pat.span()).end;
                let change = format!("without the arm {}", plain(&self.text[self.range(arm.pat.span())]));
                self.add(arm.pat.span(), change, Edit::Replace(end..end, String::new()));
            }
        }
    }
}

/// Methods that can stand for one another.
const METHODS: &[(&str, &str)] = &[
    ("min", "max"),
    ("max", "min"),
    ("all", "any"),
    ("any", "all"),
    ("first", "last"),
    ("last", "first"),
    ("is_some", "is_none"),
    ("is_none", "is_some"),
    ("is_some_and", "is_none_or"),
    ("is_none_or", "is_some_and"),
    ("is_ok", "is_err"),
    ("is_err", "is_ok"),
    ("checked_add", "checked_sub"),
    ("checked_sub", "checked_add"),
    ("checked_mul", "checked_add"),
    ("saturating_add", "saturating_sub"),
    ("saturating_sub", "saturating_add"),
    ("saturating_mul", "saturating_add"),
    ("starts_with", "ends_with"),
    ("product", "sum"),
    ("div_ceil", "saturating_div"),
];

/// Methods whose closure says yes or no.
const CHOOSING: &[&str] = &[
    "filter",
    "any",
    "all",
    "find",
    "position",
    "take_while",
    "skip_while",
    "is_some_and",
    "is_none_or",
    "partition_point",
    "retain",
    "then_some",
    "rposition",
];

fn operators(operator: &BinOp) -> &'static [&'static str] {
    match operator {
        BinOp::Add(_) => &["-", "*"],
        BinOp::Sub(_) => &["+"],
        BinOp::Mul(_) => &["+", "/"],
        BinOp::Div(_) => &["*", "%"],
        BinOp::Rem(_) => &["/", "+"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["<=", ">="],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<="],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::BitAnd(_) => &["|"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["|"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::AddAssign(_) => &["-="],
        BinOp::SubAssign(_) => &["+="],
        BinOp::MulAssign(_) => &["+="],
        BinOp::DivAssign(_) => &["*="],
        _ => &[],
    }
}

fn literals(literal: &Lit) -> Vec<String> {
    match literal {
        Lit::Int(number) => {
            let Ok(value) = number.base10_parse::<u64>() else { return Vec::new() };
            let others = [Some(value.wrapping_add(1)), value.checked_sub(1)];
            others.into_iter().flatten().map(|other| format!("{other}{}", number.suffix())).collect()
        }
        Lit::Bool(value) => vec![(!value.value).to_string()],
        _ => Vec::new(),
    }
}

/// Whether leaving the statement out leaves something undone.
fn has_effect(expr: &Expr) -> bool {
    match expr {
        Expr::Try(inner) => has_effect(&inner.expr),
        Expr::Binary(binary) => matches!(
            binary.op,
            BinOp::AddAssign(_)
                | BinOp::SubAssign(_)
                | BinOp::MulAssign(_)
                | BinOp::DivAssign(_)
                | BinOp::RemAssign(_)
        ),
        Expr::MethodCall(_) | Expr::Call(_) | Expr::Assign(_) | Expr::Return(_) | Expr::Break(_) => true,
        _ => false,
    }
}

/// Whether a `let` stands in it that what follows needs: it cannot be wrapped.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Unary(unary) => has_let(&unary.expr),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

/// Code on one line, without more space than it takes to read it.
fn plain(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}
