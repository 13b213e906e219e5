//! A client of the wire protocol that asks as psql does, and keeps what the driver of the other tests throws away: the types of
//! columns in the simple protocol.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use crate::server::PATIENCE;

/// What a statement came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Rows {
        /// OIDs of the types of the columns.
        types: Vec<u32>,
        rows: Vec<Vec<Option<String>>>,
    },
    /// With the number of rows that it changed, where the server says so.
    Done(Option<u64>),
    /// An SQLSTATE and a message.
    Failed(String, String),
}

/// What a server says of a prepared statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// OIDs of the types of its parameters.
    pub parameters: Vec<u32>,
    /// OIDs of the types of its columns, and their modifiers.
    pub columns: Vec<(u32, i32)>,
}

pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// As a user who needs no password, in UTC.
    pub fn connect(port: u16, user: &str, database: &str) -> Session {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut session = Session { stream: BufReader::new(stream) };
        let mut hello = 196_608_u32.to_be_bytes().to_vec();
        for word in ["user", user, "database", database, "TimeZone", "UTC", ""] {
            hello.extend(word.bytes());
            hello.push(0);
        }
        session.send(&[], &hello);
        while session.receive().0 != b'Z' {}
        session
    }

    /// Of several statements, the last answer; the first error ends them.
    pub fn ask(&mut self, sql: &str) -> Answer {
        self.send(b"Q", format!("{sql}\0").as_bytes());
        let mut answer = Answer::Done(None);
        loop {
            let (kind, body) = self.receive();
            match kind {
                b'T' => {
                    let types = columns(&body).into_iter().map(|(oid, _)| oid).collect();
                    answer = Answer::Rows { types, rows: Vec::new() };
                }
                b'D' => {
                    if let Answer::Rows { rows, .. } = &mut answer {
                        rows.push(row(&body));
                    }
                }
                b'C' if !matches!(answer, Answer::Rows { .. }) => {
                    let tag = String::from_utf8_lossy(&body);
                    answer = Answer::Done(tag.trim_end_matches('\0').rsplit(' ').next().and_then(|count| count.parse().ok()));
                }
                b'E' => answer = failure(&body),
                b'Z' => return answer,
                _ => {}
            }
        }
    }

    /// Prepares a statement with parameters of these types, 0 for those that the server is to find.
    pub fn describe(&mut self, sql: &str, declared: &[u32]) -> Result<Described, String> {
        let mut parse = format!("\0{sql}\0").into_bytes();
        parse.extend(u16::try_from(declared.len()).unwrap().to_be_bytes());
        declared.iter().for_each(|oid| parse.extend(oid.to_be_bytes()));
        self.send(b"P", &parse);
        self.send(b"D", b"S\0");
        self.send(b"S", &[]);
        let mut answer = Ok(Described::default());
        loop {
            let (kind, body) = self.receive();
            match (kind, &mut answer) {
                (b't', Ok(described)) => {
                    let mut body = body.as_slice();
                    let count = number(&mut body, 2);
                    described.parameters = (0..count).map(|_| number(&mut body, 4)).collect();
                }
                (b'T', Ok(described)) => described.columns = columns(&body),
                (b'E', answer) => {
                    let Answer::Failed(state, _) = failure(&body) else { continue };
                    *answer = Err(state);
                }
                (b'Z', _) => return answer,
                _ => {}
            }
        }
    }

    fn send(&mut self, kind: &[u8], body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        let stream = self.stream.get_mut();
        stream.write_all(&[kind, &length, body].concat()).unwrap();
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).expect("the server answers");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).expect("the server answers");
        (head[0], body)
    }
}

/// OIDs of types, and their modifiers.
fn columns(mut body: &[u8]) -> Vec<(u32, i32)> {
    let count = number(&mut body, 2);
    let mut of_next = || {
        let name = body.iter().position(|byte| *byte == 0).unwrap();
        body = &body[name + 1..];
        let (_relation, _column) = (number(&mut body, 4), number(&mut body, 2));
        let oid = number(&mut body, 4);
        let (_size, modifier, _format) = (number(&mut body, 2), number(&mut body, 4), number(&mut body, 2));
        (oid, modifier.cast_signed())
    };
    (0..count).map(|_| of_next()).collect()
}

fn row(mut body: &[u8]) -> Vec<Option<String>> {
    let count = number(&mut body, 2);
    let mut value = || {
        let length = number(&mut body, 4);
        if length == u32::MAX {
            return None;
        }
        let (value, rest) = body.split_at(length as usize);
        body = rest;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    (0..count).map(|_| value()).collect()
}

fn failure(body: &[u8]) -> Answer {
    let field = |kind: u8| {
        let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&kind));
        String::from_utf8_lossy(found.map_or(&[], |field| &field[1..])).into_owned()
    };
    Answer::Failed(field(b'C'), field(b'M'))
}

fn number(body: &mut &[u8], bytes: usize) -> u32 {
    let (number, rest) = body.split_at(bytes);
    *body = rest;
    number.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}
