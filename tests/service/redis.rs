//! A fake Redis with scripted replies.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use socket2::{Domain, Socket, Type};

use crate::process::{TIMEOUT, eventually, lock};

/// A server with a reply for each command.
pub(crate) struct Redis {
    pub(crate) address: String,
    /// The socket until [`listen`](Self::listen) is called: bound, so that the port is reserved,
    /// but not listening, so that connections are refused.
    pub(crate) socket: Option<Socket>,
    pub(crate) script: Arc<Script>,
}

#[derive(Default)]
pub(crate) struct Script {
    /// The reply to each command. With `None`, the server reads the command and does not reply.
    pub(crate) replies: Mutex<BTreeMap<&'static str, Option<&'static str>>>,
    pub(crate) changed: Condvar,
    pub(crate) commands: Mutex<Vec<String>>,
}

impl Redis {
    pub(crate) fn refusing() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port");
        let address = socket.local_addr().expect("its address").as_socket();
        let address = address.expect("of the family that was bound");
        let redis = Self {
            address: address.to_string(),
            socket: Some(socket),
            script: Arc::default(),
        };
        redis.set_reply("PING", Some("+PONG"));
        redis.set_reply("INCR", Some(":1"));
        redis
    }

    pub(crate) fn running() -> Self {
        let mut redis = Self::refusing();
        redis.listen();
        redis
    }

    pub(crate) fn listen(&mut self) {
        let socket = self.socket.take().expect("`listen` is called once");
        socket.listen(64).expect("a bound socket");
        let listener = TcpListener::from(socket);
        let script = Arc::clone(&self.script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                thread::spawn(move || script.play(stream));
            }
        });
    }

    /// Sets the reply to a command, also for clients that already wait for the reply.
    pub(crate) fn set_reply(&self, command: &'static str, reply: Option<&'static str>) {
        lock(&self.script.replies).insert(command, reply);
        self.script.changed.notify_all();
    }

    /// Returns how often the command was received.
    pub(crate) fn count(&self, command: &str) -> usize {
        let commands = lock(&self.script.commands);
        commands
            .iter()
            .filter(|line| line.starts_with(command))
            .count()
    }

    pub(crate) fn await_command(&self, command: &str) {
        eventually(command, TIMEOUT, || (self.count(command) > 0).then_some(()));
    }

    /// Returns the environment variable that makes the service use this server.
    pub(crate) fn variable(&self) -> (&str, &str) {
        ("REDIS", &self.address)
    }
}

impl Script {
    pub(crate) fn play(&self, mut stream: TcpStream) {
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            return;
        }
        lock(&self.commands).push(line.clone());
        let command = line.split_whitespace().next().unwrap_or_default();
        let replies = self
            .changed
            .wait_while(lock(&self.replies), |replies| {
                replies.get(command).is_some_and(Option::is_none)
            })
            .unwrap_or_else(PoisonError::into_inner);
        let reply = replies.get(command).copied().flatten();
        // An error is ignored, because the client may have closed the connection.
        let _ = write!(stream, "{}\r\n", reply.unwrap_or("-ERR unknown command"));
    }
}
