//! HTTP/1.1 written byte by byte, so that nothing between a test and a door helps either of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request; sent on a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct HttpRequest {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_chunked: bool,
}

#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl HttpRequest {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new(), is_chunked: false }
    }

    pub(crate) fn post(path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let request = Self { method: "POST", body: body.into(), ..Self::get(path) };
        request.header("content-type", content_type)
    }

    pub(crate) fn put(path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "PUT", ..Self::post(path, content_type, body) }
    }

    pub(crate) fn delete(path: &str, body: &str) -> Self {
        Self { method: "DELETE", body: body.as_bytes().to_vec(), ..Self::get(path) }
    }

    /// Replaces the header if it is there.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(present, _)| present != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body in chunks and without a length.
    pub(crate) fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }

    pub(crate) async fn send(&self, address: &str) -> HttpAnswer {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&self.bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let head_end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer has a head");
        let body = answer.split_off(head_end + 4);
        let head = String::from_utf8(answer).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        HttpAnswer { status, head, body }
    }

    fn bytes(&self) -> Vec<u8> {
        const CHUNK_BYTES: usize = 1_000;
        let mut head = format!("{} {} HTTP/1.1\r\nhost: tracelake\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.is_chunked {
            head += "transfer-encoding: chunked\r\n";
        } else if !self.headers.iter().any(|(name, _)| name == "content-length") {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        let mut bytes = (head + "\r\n").into_bytes();
        if !self.is_chunked {
            bytes.extend(&self.body);
            return bytes;
        }
        for chunk in self.body.chunks(CHUNK_BYTES) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

impl HttpAnswer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
