//! An HTTP/2 client that sends only what a test asks for.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::process::connect;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub(crate) const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) struct Http2(TcpStream);

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut client = Self(connect(address).expect("a connection"));
        client
            .0
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .expect("a preface");
        client.send(SETTINGS, 0, 0, &[]).expect("settings");
        client
    }

    /// Sends a GET on a new stream. The number of a client's stream must be odd.
    pub(crate) fn get(&mut self, stream: u32, path: &str) {
        // `:method: GET` and `:scheme: http` are entries of HPACK's static table. `:path` and
        // `:authority` are names of that table with literal values.
        let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
        block.extend(path.bytes());
        block.extend([0x01, 4]);
        block.extend(b"test");
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block)
            .expect("a request");
    }

    /// Allows the server to send this many bytes more, on the connection and on a stream.
    pub(crate) fn allow(&mut self, stream: u32, bytes: usize) {
        let bytes = (bytes as u32).to_be_bytes();
        for stream in [0, stream] {
            // The server may have closed the connection after the last byte.
            let _ = self.send(WINDOW_UPDATE, 0, stream, &bytes);
        }
    }

    /// Opens a WebSocket on a new stream, as RFC 8441 defines it.
    pub(crate) fn websocket(&mut self, stream: u32, path: &str) {
        let mut block = vec![0x86];
        // The values are literal, and the names are entries of HPACK's static table.
        for (name, value) in [(0x02, "CONNECT"), (0x04, path), (0x01, "test")] {
            block.extend([name, value.len() as u8]);
            block.extend(value.bytes());
        }
        for (name, value) in [(":protocol", "websocket"), ("sec-websocket-version", "13")] {
            block.extend([0, name.len() as u8]);
            block.extend(name.bytes());
            block.push(value.len() as u8);
            block.extend(value.bytes());
        }
        self.send(HEADERS, END_HEADERS, stream, &block)
            .expect("a request");
    }

    /// Sends data on an open stream.
    pub(crate) fn data(&mut self, stream: u32, payload: &[u8]) {
        self.send(DATA, 0, stream, payload)
            .expect("an open connection");
    }

    /// Sends a ping. When the server acknowledges the ping, it has received all earlier frames.
    pub(crate) fn ping(&mut self) {
        self.send(PING, 0, 0, &[0; 8]).expect("an open connection");
    }

    /// Reads a frame. Acknowledges settings and pings, as every client must.
    pub(crate) fn read(&mut self) -> io::Result<Frame> {
        let frame = self.read_only()?;
        if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
            let payload = if frame.kind == PING {
                &frame.payload[..]
            } else {
                &[]
            };
            self.send(frame.kind, ACK, 0, payload)?;
        }
        Ok(frame)
    }

    /// Reads frames up to the next one of this kind, and returns that frame.
    pub(crate) fn read_until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.read().expect("a frame");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads frames until the server closes the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.read().ok()).collect()
    }

    fn read_only(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload)?;
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            payload,
        })
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame)
    }
}
