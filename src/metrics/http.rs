//! `GET /metrics` and nothing else, over plain HTTP.
//!
//! Whoever asks gets a thread for a few seconds at most, a few at a time do, and their requests are short. So nobody can hold up readers of the
//! mount. Who keeps all connections busy keeps others from the figures; that is for the address to prevent. Not here: what is answered.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Connections that are answered at a time. Others are hung up on.
const MOST_CONNECTIONS: usize = 8;

/// Bytes of a request, which is a line and some headers.
const MOST_BYTES: usize = 8 << 10;

/// How long a connection may take from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait where no connection can be taken, as when too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// An address that is listened at, and nobody answers yet.
#[derive(Debug)]
pub struct Exporter {
    listener: TcpListener,
}

/// Listens at `HOST:PORT`; port 0 takes any that is free.
///
/// # Errors
/// The address is in use, or none of this machine.
pub fn bind(address: &str) -> io::Result<Exporter> {
    Ok(Exporter { listener: TcpListener::bind(address)? })
}

impl Exporter {
    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers from threads of its own, for as long as this process lives. `figures` is the text of the moment; `None` where there is none any
    /// more.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn answer(self, figures: impl Fn() -> Option<String> + Send + Sync + 'static) -> io::Result<()> {
        let figures: Arc<dyn Fn() -> Option<String> + Send + Sync> = Arc::new(figures);
        thread::Builder::new().name("metrics".into()).spawn(move || accept(&self.listener, &figures)).map(drop)
    }
}

fn accept(listener: &TcpListener, figures: &Arc<dyn Fn() -> Option<String> + Send + Sync>) {
    // Each connection holds one of it.
    let places = Arc::new(());
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(PAUSE);
            continue;
        };
        if Arc::strong_count(&places) > MOST_CONNECTIONS {
            continue;
        }
        let (figures, place) = (Arc::clone(figures), Arc::clone(&places));
        // Without a thread it is hung up on, too.
        let _ = thread::Builder::new().name("metrics".into()).spawn(move || {
            let mut connection = Connection { stream, end: Instant::now() + PATIENCE };
            // Whoever does not listen to the end is not missed.
            let _ = connection.serve(&*figures);
            drop(place);
        });
    }
}

struct Connection {
    stream: TcpStream,
    end: Instant,
}

impl Connection {
    fn serve(&mut self, figures: &dyn Fn() -> Option<String>) -> io::Result<()> {
        let answer = match self.request()? {
            Request::Metrics => match figures() {
                Some(text) => response("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", &text),
                None => plain("503 Service Unavailable", "", "the mount is going away\n"),
            },
            Request::Elsewhere => plain("404 Not Found", "", "only /metrics is here\n"),
            Request::OtherMethod => plain("405 Method Not Allowed", "Allow: GET\r\n", "only GET is answered\n"),
            Request::TooLong => plain("431 Request Header Fields Too Large", "", "the request is too long\n"),
            Request::NotUnderstood => plain("400 Bad Request", "", "this is no HTTP\n"),
        };
        let mut rest = answer.as_bytes();
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            let written = self.stream.write(rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        self.stream.shutdown(Shutdown::Write)?;
        // What was sent beyond the request is read, or the answer would be lost where it was not read yet.
        let mut ignored = [0; 1024];
        let mut most = MOST_BYTES;
        while most > 0 {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut ignored)? {
                0 => break,
                read => most = most.saturating_sub(read),
            }
        }
        Ok(())
    }

    /// What is left of the time.
    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn request(&mut self) -> io::Result<Request> {
        let mut head = Vec::new();
        let mut part = [0; 1024];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && !head.windows(2).any(|end| end == b"\n\n") {
            if head.len() >= MOST_BYTES {
                return Ok(Request::TooLong);
            }
            self.stream.set_read_timeout(Some(self.left()?))?;
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            head.extend_from_slice(part.get(..read).unwrap_or_default());
        }
        Ok(Request::of(&head))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Metrics,
    Elsewhere,
    OtherMethod,
    TooLong,
    NotUnderstood,
}

impl Request {
    fn of(head: &[u8]) -> Self {
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let words: Vec<&str> = std::str::from_utf8(line).map(|line| line.trim_end_matches('\r').split(' ').collect()).unwrap_or_default();
        let [method, path, version] = words[..] else { return Self::NotUnderstood };
        if !version.starts_with("HTTP/1.") {
            return Self::NotUnderstood;
        }
        match (method, path.split('?').next()) {
            ("GET", Some("/metrics")) => Self::Metrics,
            ("GET", _) => Self::Elsewhere,
            _ => Self::OtherMethod,
        }
    }
}

fn plain(status: &str, headers: &str, text: &str) -> String {
    response(status, "text/plain; charset=utf-8", headers, text)
}

fn response(status: &str, kind: &str, headers: &str, text: &str) -> String {
    let len = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{headers}Connection: close\r\n\r\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_are_got() {
        for (line, request) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Request::Metrics),
            ("GET /metrics?a=b HTTP/1.0\n\n", Request::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Request::Elsewhere),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Request::Elsewhere),
            ("GET http://a/metrics HTTP/1.1\r\n\r\n", Request::Elsewhere),
            ("POST /metrics HTTP/1.1\r\n\r\n", Request::OtherMethod),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Request::OtherMethod),
            ("get /metrics HTTP/1.1\r\n\r\n", Request::OtherMethod),
            ("GET /metrics\r\n\r\n", Request::NotUnderstood),
            ("GET /metrics HTTP/2\r\n\r\n", Request::NotUnderstood),
            ("\u{16}\u{3}\u{1}\n\n", Request::NotUnderstood),
            ("\n\n", Request::NotUnderstood),
        ] {
            assert_eq!(Request::of(line.as_bytes()), request, "{line:?}");
        }
        assert_eq!(Request::of(b"GET \xff HTTP/1.1\n\n"), Request::NotUnderstood);
    }
}
