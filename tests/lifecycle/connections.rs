//! Clients that keep their connections open while the service ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::process::{
    AT_ONCE, EVENT_TIMEOUT, LONG_DELAY, Program, connect, drains, eventually, get,
};

const DELAY: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(700);
const SHORT: [(&str, &str); 2] = [("DRAIN_DELAY", "300"), ("SHUTDOWN_TIMEOUT", "700")];

/// How much later than expected a process may end, so that a busy machine passes the tests.
const MARGIN: Duration = Duration::from_millis(900);

/// Kinds of clients, which differ in what they send and receive before the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Silent,
    OneByte,
    HalfHead,
    Kept,
    EndlessUpload,
    UnreadResponse,
    Events,
}

use Client::{EndlessUpload, Events, HalfHead, Kept, OneByte, Silent, UnreadResponse};

const CLIENTS: [Client; 7] = [
    Silent,
    OneByte,
    HalfHead,
    Kept,
    EndlessUpload,
    UnreadResponse,
    Events,
];

impl Client {
    /// Connects, and sends and receives what the variant's name says. The connection stays open.
    fn connect(self, address: SocketAddr) -> TcpStream {
        let mut stream = connect(address).expect("a connection");
        let request = match self {
            Silent => "",
            OneByte => "G",
            HalfHead => "GET / HTTP/1.1\r\nHost",
            Kept => "GET /health HTTP/1.1\r\nHost: test\r\n\r\n",
            EndlessUpload => {
                "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nx"
            }
            UnreadResponse => "GET /large HTTP/1.1\r\nHost: test\r\n\r\n",
            Events => "GET /events HTTP/1.1\r\nHost: test\r\n\r\n",
        };
        stream.write_all(request.as_bytes()).expect("a request");
        if matches!(self, Kept | UnreadResponse | Events) {
            stream.read_exact(&mut [0]).expect("a response");
        }
        stream
    }

    /// Whether the service has to wait for this client, because its request is in flight.
    fn has_request(self) -> bool {
        matches!(self, EndlessUpload | UnreadResponse | Events)
    }
}

#[test]
fn service_ends_whatever_a_client_does() {
    for_each_client(|client| {
        let (program, address) = Program::listening("serve", &SHORT);
        let _held = client.connect(address);

        program.signal("TERM");
        let end = program.end();

        let expected = if client.has_request() {
            DELAY + TIMEOUT
        } else {
            DELAY
        };
        println!("serve, {client:?}: {:?}", end.took);
        assert_eq!(end.code, Some(0), "{client:?}: {}", end.log);
        let range = expected..expected + MARGIN;
        assert!(range.contains(&end.took), "{client:?}: {end:?}");
        let line = "connections cut connections=1";
        assert_eq!(
            end.log.contains(line),
            client.has_request(),
            "{client:?}: {end:?}"
        );
    });
}

#[test]
fn service_of_pieces_ends_whatever_a_client_does() {
    for_each_client(|client| {
        let (program, address) = Program::listening("pieces", &SHORT);
        let _held = client.connect(address);

        program.signal("TERM");
        let end = program.end();

        println!("pieces, {client:?}: {:?}", end.took);
        assert_eq!(end.code, Some(0), "{client:?}: {}", end.log);
        let range = DELAY..DELAY + TIMEOUT + MARGIN;
        assert!(range.contains(&end.took), "{client:?}: {end:?}");
    });
}

#[test]
fn worker_ends_whatever_a_client_does() {
    for_each_client(|client| {
        // The worker's listener serves only health routes, not the routes that these two clients
        // request.
        let client = match client {
            UnreadResponse | Events => return,
            client => client,
        };
        let (program, address) = Program::listening("worker", &SHORT);
        let _held = client.connect(address);

        program.signal("TERM");
        let end = program.end();

        println!("worker, {client:?}: {:?}", end.took);
        assert_eq!(end.code, Some(0), "{client:?}: {}", end.log);
        assert!(end.took < MARGIN, "{client:?}: {end:?}");
    });
}

#[test]
fn request_that_ends_in_time_is_answered_whole() {
    for mode in ["serve", "pieces"] {
        let (program, address) = Program::listening(mode, &SHORT);
        let slow = thread::spawn(move || get(address, "/sleep/700"));
        let large = UnreadResponse.connect(address);
        eventually("the request is in flight", || {
            // The server accepts in order, so a response on a later connection proves that it has
            // accepted the earlier connections.
            get(address, "/").ok()
        });

        program.signal("TERM");
        eventually("the port closes", || get(address, "/").err());
        let mut body = 0;
        let mut large = BufReader::new(large);
        for line in large.by_ref().lines().map_while(Result::ok) {
            if line.is_empty() {
                break;
            }
        }
        let mut buffer = vec![0; 1 << 20];
        while let Ok(length @ 1..) = large.read(&mut buffer) {
            body += length;
        }
        let end = program.end();

        let slow = slow.join().expect("no panic").expect("a response");
        assert!(slow.ends_with("slept 700\n"), "{mode}: {slow:?}");
        assert_eq!(body, 64 << 20, "{mode}");
        assert_eq!(end.code, Some(0), "{mode}: {}", end.log);
        assert!(!end.log.contains("cut"), "{mode}: {}", end.log);
    }
}

#[test]
fn responses_ask_clients_to_leave_from_the_signal_on() {
    for mode in ["serve", "pieces"] {
        let (program, address) = Program::listening(mode, &[LONG_DELAY]);
        let mut kept = [(); 2].map(|()| connect(address).expect("a connection"));
        for stream in &mut kept {
            let head = ask(stream, "1.1");
            assert!(head.starts_with("http/1.1 200"), "{mode}: {head}");
            assert!(!head.contains("connection:"), "{mode}: {head}");
        }

        program.signal("TERM");
        drains(address);
        let fresh = connect(address).expect("a connection");
        for mut stream in kept.into_iter().chain([fresh]) {
            let head = ask(&mut stream, "1.1");
            assert!(head.starts_with("http/1.1 200"), "{mode}: {head}");
            assert_eq!(
                head.matches("connection: close\r\n").count(),
                1,
                "{mode}: {head}"
            );
            assert_eq!(stream.read(&mut [0]).expect("the end"), 0, "{mode}");
        }
    }
}

#[test]
fn client_of_http_1_0_is_asked_to_leave_too() {
    let (program, address) = Program::listening("serve", &[LONG_DELAY]);
    let mut stream = connect(address).expect("a connection");
    assert!(ask(&mut stream, "1.0").contains("connection: keep-alive"));

    program.signal("TERM");
    drains(address);

    let head = ask(&mut stream, "1.0");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(!head.contains("keep-alive"), "{head}");
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn idle_connection_is_closed_at_the_end_of_the_delay() {
    let (program, address) = Program::listening("serve", &SHORT);
    let mut kept = Kept.connect(address);
    let mut rest = [0; 1024];
    let _ = kept.read(&mut rest).expect("the rest of the response");

    let signalled = Instant::now();
    program.signal("TERM");
    let closed = kept.read(&mut rest).expect("the end");
    let after = signalled.elapsed();

    assert_eq!(closed, 0);
    assert!((DELAY..DELAY + MARGIN).contains(&after), "{after:?}");
    assert_eq!(program.end().code, Some(0));
}

#[test]
fn requests_that_arrived_in_time_are_answered() {
    let (program, address) = Program::listening("serve", &SHORT);
    let mut kept = connect(address).expect("a connection");
    ask(&mut kept, "1.1");

    program.signal("TERM");
    drains(address);
    // The service is stopped until its drain delay is over. When it continues, it finds all
    // requests and the end of the delay at the same time.
    program.signal("STOP");
    let mut fresh = [(); 8].map(|()| connect(address).expect("a connection"));
    for stream in fresh.iter_mut().chain([&mut kept]) {
        stream
            .write_all(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n")
            .expect("a request");
    }
    thread::sleep(DELAY);
    program.signal("CONT");

    for stream in fresh.iter_mut().chain([&mut kept]) {
        let head = head(stream);
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    assert_eq!(program.end().code, Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn unix_socket_is_advertised() {
    let path = std::env::temp_dir().join(format!("lifesign-{}.socket", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let path = path.to_str().expect("UTF-8");
    let program = Program::start("serve_unix", &[("ADDRESS", path)]);
    program.line();
    let own = format!(".{}", program.id());

    let advertised = eventually("the address is advertised", || {
        let mut files = std::fs::read_dir("/dev/shm").ok()?.flatten();
        let file = files.find(|file| file.file_name().to_string_lossy().ends_with(&own))?;
        std::fs::read_to_string(file.path()).ok()
    });

    std::fs::remove_file(path).expect("the socket");
    assert!(advertised.contains(path), "{advertised}");
}

#[test]
fn second_signal_closes_idle_connections() {
    let (program, address) = Program::listening("serve", &[LONG_DELAY]);
    let _held = [Silent, OneByte, HalfHead, Kept].map(|client| client.connect(address));

    program.signal("TERM");
    drains(address);
    thread::sleep(Duration::from_millis(120));
    program.signal("TERM");
    let end = program.end();

    assert_eq!(end.code, Some(0), "{}", end.log);
    assert!(end.took < AT_ONCE, "{end:?}");
}

#[test]
fn upgraded_connection_works_through_the_drain() {
    for mode in ["serve", "pieces"] {
        let (program, address) = Program::listening(mode, &[LONG_DELAY]);
        let mut before = upgraded(address);

        program.signal("TERM");
        drains(address);
        let mut during = upgraded(address);

        for stream in [&mut before, &mut during] {
            stream.write_all(b"ping").expect("an open connection");
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).expect("an echo");
            assert_eq!(&echo, b"ping", "{mode}");
        }
    }
}

fn upgraded(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address).expect("a connection");
    let request =
        b"GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(request).expect("a request");
    let head = head(&mut stream);
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("connection: upgrade\r\n"), "{head}");
    stream
}

/// Sends a keep-alive request, and returns the head of the response.
fn ask(stream: &mut TcpStream, version: &str) -> String {
    let keep = match version {
        "1.0" => "Connection: keep-alive\r\n",
        _ => "",
    };
    write!(stream, "HEAD / HTTP/{version}\r\nHost: test\r\n{keep}\r\n").expect("a request");
    head(stream)
}

/// Returns the head of a response in lower case, and leaves the body unread.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("ASCII").to_lowercase()
}

fn for_each_client(test: impl Fn(Client) + Sync) {
    assert!(DELAY + TIMEOUT < EVENT_TIMEOUT);
    thread::scope(|scope| {
        let test = &test;
        for client in CLIENTS {
            scope.spawn(move || test(client));
        }
    });
}
