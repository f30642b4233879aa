//! Helpers that several targets use.
#![allow(dead_code, reason = "each target uses only some of the helpers")]

use httparse::{EMPTY_HEADER, Request, Status};

/// A generator of pseudo-random choices, seeded by a hash of the input. Choices take no bytes from
/// the input, so the whole input can be sent to the peer.
pub struct Choices(u64);

impl Choices {
    pub fn of(input: &[u8]) -> Self {
        // FNV-1a, a hash function.
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Self(input.iter().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    pub fn below(&mut self, bound: u32) -> u32 {
        // The xorshift64* generator, whose state must not be 0.
        self.0 |= u64::from(self.0 == 0);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32;
        high % bound
    }

    /// Splits the input into pieces of 1 to 2048 bytes. The probe reads up to 2048 bytes at a time.
    pub fn pieces<'a>(&mut self, mut input: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !input.is_empty() {
            let length = (1 << self.below(12)).min(input.len());
            let piece;
            (piece, input) = input.split_at(length);
            pieces.push(piece);
        }
        pieces
    }
}

/// Asserts that a printed line has at most 400 bytes and no characters that control a terminal.
pub fn assert_line(line: &str) {
    assert!(line.len() <= 400, "{} bytes: {line}", line.len());
    let text = line
        .strip_suffix('\n')
        .expect("the line ends with a line feed");
    let is_control =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.contains(is_control), "{text:?}");
}

/// Asserts that the text is exactly one request. If a path is given, the request must be for that
/// path.
pub fn assert_request(request: &str, path: Option<&str>) {
    let mut headers = [EMPTY_HEADER; 1024];
    let mut head = Request::new(&mut headers);
    let length = head.parse(request.as_bytes());
    assert_eq!(length, Ok(Status::Complete(request.len())), "{request:?}");
    assert_eq!((head.method, head.version), (Some("GET"), Some(1)));
    if path.is_some() {
        assert_eq!(head.path, path);
    }
    assert!(
        !request.replace("\r\n", "").contains(['\r', '\n', '\0']),
        "{request:?}"
    );
    let values = |name: &str| {
        let named = head
            .headers
            .iter()
            .filter(|h| h.name.eq_ignore_ascii_case(name));
        named.map(|h| h.value).collect::<Vec<_>>()
    };
    assert_eq!(values("connection"), [b"close"]);
    assert!(!values("host").is_empty());
    assert!(values("content-length").is_empty() && values("transfer-encoding").is_empty());
}
