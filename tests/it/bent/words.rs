//! What clients say: before they are let in, and conversations of those that are.

/// Messages of clients that nobody knows yet.
pub const BEFORE_LOG_IN: [&[u8]; 9] = [
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\0\0\0\x08\x04\xd2\x16\x30",
    b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\x01\x02\x03\x04",
    b"\0\0\0\x17\0\x03\0\0user\0tidegate\0\0",
    b"\0\0\0\x2b\0\x03\0\0user\0tidegate\0options\0-c geqo=off\0\0",
    b"p\0\0\0\x37SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=rOprNGfwEbeRWgbNEkqOabcde",
    b"p\0\0\0\x5cc=biws,r=rOprNGfwEbeRWgbNEkqOabcde,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"\x16\x03\x01\0\x2f\x01\0\0\x2b\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\0\x04\x13\x01\x13\x02\x01\0",
    b"Q\0\0\0\x0dSELECT 1\0",
];

/// A message's tag and body; its length is put between.
type Message = (u8, &'static [u8]);

/// What drivers send, message by message.
pub const CONVERSATIONS: [&[Message]; 8] = [
    // Statements, one string of several.
    &[
        (b'Q', b"SELECT id, name, price FROM bent WHERE id < 10 ORDER BY id\0"),
        (b'Q', b"INSERT INTO bent VALUES (51, 'x', 1.5, NULL); UPDATE bent SET price = 2 WHERE id = 51; DELETE FROM bent WHERE id = 51\0"),
        (b'Q', b"SELECT count(*), avg(price), string_agg(name, ',') FROM bent GROUP BY id % 3\0"),
    ],
    // A prepared statement with parameters in text and binary.
    &[
        (b'P', b"one\0SELECT name, $2 FROM bent WHERE id = $1 OR name = $2\0\0\x02\0\0\0\x17\0\0\0\x19"),
        (b'B', b"\0one\0\0\x02\0\x01\0\0\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x06name 7\0\x01\0\x01"),
        (b'D', b"P\0"),
        (b'E', b"\0\0\0\0\0"),
        (b'C', b"Sone\0"),
        (b'S', b""),
    ],
    // Types that the server finds; a number of rows at a time, with Flush between.
    &[
        (b'P', b"\0SELECT * FROM bent WHERE price BETWEEN $1 AND $2 LIMIT $3\0\0\0"),
        (b'D', b"S\0"),
        (b'B', b"p\0\0\0\0\0\x03\0\0\0\x011\0\0\0\x0240\xff\xff\xff\xff\0\0"),
        (b'E', b"p\0\0\0\0\x05"),
        (b'H', b""),
        (b'E', b"p\0\0\0\0\x05"),
        (b'C', b"Pp\0"),
        (b'S', b""),
    ],
    // COPY from the client: all of it, and one that gives up.
    &[
        (b'Q', b"COPY bent FROM STDIN\0"),
        (b'd', b"52\tfrom a copy\t1.25\t2024-01-01 00:00:00\n"),
        (b'd', b"53\t\\N\t\\N\t\\N\n"),
        (b'c', b""),
        (b'Q', b"COPY bent (id, name) FROM STDIN WITH (FORMAT csv)\0"),
        (b'd', b"54,\"a, b\"\n"),
        (b'f', b"no more\0"),
    ],
    // COPY to the client, and in binary from it.
    &[
        (b'Q', b"COPY (SELECT id, name FROM bent) TO STDOUT\0"),
        (b'Q', b"COPY bent (id, name) FROM STDIN WITH (FORMAT binary)\0"),
        (b'd', b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\x37\0\0\0\x01x\xff\xff"),
        (b'c', b""),
    ],
    // A cursor in a block, and savepoints.
    &[
        (b'Q', b"BEGIN\0"),
        (b'Q', b"DECLARE c CURSOR FOR SELECT * FROM bent ORDER BY id\0"),
        (b'Q', b"FETCH 3 FROM c\0"),
        (b'Q', b"SAVEPOINT s\0"),
        (b'Q', b"SELECT 1 / 0\0"),
        (b'Q', b"ROLLBACK TO s\0"),
        (b'Q', b"CLOSE c\0"),
        (b'Q', b"COMMIT\0"),
    ],
    // What takes a while, for those that cancel.
    &[(b'Q', b"SELECT pg_sleep(0.02)\0"), (b'Q', b"SELECT sum(a.id * b.id) FROM bent a, bent b, bent c\0")],
    // Errors up to the next Sync, calls of functions, an end.
    &[
        (b'P', b"\0SELECT nothing FROM nowhere\0\0\0"),
        (b'B', b"\0\0\0\0\0\0\0\0"),
        (b'E', b"\0\0\0\0\0"),
        (b'S', b""),
        (b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        (b'S', b""),
        (b'X', b""),
    ],
];

/// The start of a session.
pub fn hello() -> Vec<u8> {
    b"\0\0\0\x17\0\x03\0\0user\0tidegate\0\0".to_vec()
}

/// The bytes of a conversation's messages.
pub fn messages(conversation: &[Message]) -> impl Iterator<Item = Vec<u8>> {
    conversation.iter().map(|(tag, body)| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[*tag], length.as_slice(), body].concat()
    })
}
