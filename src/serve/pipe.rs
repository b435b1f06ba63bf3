//! Requests in, answers out, in the order of the requests: one opened checkpoint for as many reads as a program likes.
//!
//! A client may send requests before it has read the answers to earlier ones. The pipe between the two holds a megabyte, where the client
//! asks the system for that: so much is on its way while the next is gathered, and a thread of its own for
//! writing was measured to be slower. An answer is whole in memory before its line is written, so a read that fails is an answer like any other and never
//! the middle of one. Not here: what a request means to a checkpoint.

use std::io::{self, BufRead, Read, Write};

use serde::Serialize;

use super::messages::{Answer, FileLine, Greeting, PROTOCOL, Request, TensorLine};
use super::{Files, ServeError};

/// Most bytes of one read, which is the memory that answers take.
pub const BLOCK: u64 = 16 << 20;

/// Longer lines than this are no requests: paths are shorter.
const LONGEST_LINE: u64 = 64 << 10;

/// The exit code that a program would end with, and its message: clients tell errors apart as they do those of other commands.
pub type ExitCodes<'a> = &'a dyn Fn(&ServeError) -> (u8, String);

/// Answers `requests` until they end.
///
/// # Errors
/// What a stream answers. A client that reads no more is one: `BrokenPipe`.
pub fn answer(
    files: &Files,
    mut requests: impl BufRead,
    mut answers: impl Write,
    exit_codes: ExitCodes<'_>,
) -> io::Result<()> {
    answers.write_all(&line(&greeting(files))?)?;
    let mut bytes = Vec::new();
    while let Some(request) = next_line(&mut requests)? {
        let answer = match respond(files, &request, &mut bytes) {
            Ok(answer) => answer,
            Err(error) => {
                bytes.clear();
                let (exit_code, error) = exit_codes(&error);
                Answer::Error { error, exit_code }
            }
        };
        answers.write_all(&line(&answer)?)?;
        answers.write_all(&bytes)?;
    }
    Ok(())
}

fn greeting(files: &Files) -> Greeting<'_> {
    Greeting {
        ckpt_fs: env!("CARGO_PKG_VERSION"),
        protocol: PROTOCOL,
        format: files.format().name(),
        layout: files.layout_name(),
        modified: files.modified(),
        block: BLOCK,
        files: files.all().iter().map(FileLine::of).collect(),
    }
}

/// The answer to a line, with the bytes that follow it in `bytes`.
fn respond(files: &Files, request: &[u8], bytes: &mut Vec<u8>) -> Result<Answer, ServeError> {
    let request = serde_json::from_slice(request).map_err(|error| ServeError::Request(error.to_string()))?;
    match request {
        Request::File { path } => {
            bytes.clear();
            let (file, tensors) = files.with_tensors(&path)?;
            Ok(Answer::File {
                size: file.bytes(),
                tensors: tensors.into_iter().map(TensorLine::from).collect(),
            })
        }
        Request::Read { bytes: asked, .. } if asked > BLOCK => Err(ServeError::TooMuch(asked)),
        Request::Read { path, offset, bytes: asked } => {
            let file = files.file(&path)?;
            files.read(&file, offset..offset.saturating_add(asked), bytes)?;
            Ok(Answer::Read { bytes: bytes.len() })
        }
    }
}

/// The next request without its end of line; `None` at the end of them.
fn next_line(requests: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    requests.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut request)?;
    match request.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(request)),
        // Half a line is that of a client that ended in the middle of it, unless it is no line at all.
        Some(_) if request.len() as u64 + 1 < LONGEST_LINE => Ok(None),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a request is longer than 64 KiB")),
    }
}

fn line(of: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(of)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn requests_are_lines_of_bounded_length() {
        let mut requests = Cursor::new(b"a\n\nbc\nhalf".to_vec());
        let mut next = || next_line(&mut requests).unwrap();
        assert_eq!(
            [next(), next(), next()].map(|line| line.unwrap()),
            [b"a".to_vec(), vec![], b"bc".to_vec()]
        );
        assert_eq!(next(), None);
        let long = vec![b'x'; LONGEST_LINE as usize + 1];
        assert_eq!(next_line(&mut Cursor::new(long)).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
