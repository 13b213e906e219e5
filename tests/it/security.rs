//! Who may come in, and what they may do then: the real server, under psql, a driver and bare bytes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};
use tokio_rustls::rustls;

use crate::say;
use crate::server::{Server, Settings, describe, rows, run, try_rows};

pub const PASSWORD: &str = "correct horse";

/// Writes `server.crt`, which is its own authority, and `server.key`.
pub fn certificate(directory: &Path) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_string()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(directory.join("server.crt"), certificate.pem()).unwrap();
    let path = directory.join("server.key");
    std::fs::write(&path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// A server with a certificate and a password.
pub async fn guarded(directory: &Path) -> Server {
    certificate(directory);
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let environment = vec![
        ("TIDEGATE_TLS_CERT", path("server.crt")),
        ("TIDEGATE_TLS_KEY", path("server.key")),
        ("TIDEGATE_PASSWORD", PASSWORD.to_string()),
    ];
    Server::start(directory, Settings { environment, password: Some(PASSWORD), ..Settings::default() }).await
}

/// What psql answers to a statement, or the error.
fn psql(connection: &str, password: &str, sql: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", sql])
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn has_psql() -> bool {
    let found = Command::new("psql").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        say("SKIPPED: there is no psql");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_comes_in_by_certificate_and_password() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(directory.path()).await;
    if !has_psql() {
        return;
    }
    let root = directory.path().join("server.crt").to_string_lossy().into_owned();
    let at =
        |more: &str| format!("host=localhost port={} user=tidegate dbname=tidegate sslrootcert={root} {more}", server.port());
    let one = Ok("1".to_string());
    for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
        assert_eq!(psql(&at(&format!("sslmode={mode}")), PASSWORD, "SELECT 1"), one, "{mode}");
    }
    // With and without binding the proof to the certificate.
    for binding in ["disable", "prefer", "require"] {
        let connection = at(&format!("sslmode=verify-full channel_binding={binding}"));
        assert_eq!(psql(&connection, PASSWORD, "SELECT 1"), one, "{binding}");
    }
    assert!(psql(&at("sslmode=disable channel_binding=require"), PASSWORD, "SELECT 1").is_err());
    // Another name than the certificate's, and another authority.
    let error = psql(&at("sslmode=verify-full").replace("host=localhost", "host=127.0.0.1"), PASSWORD, "SELECT 1").unwrap_err();
    assert!(error.contains("does not match host name"), "{error}");
    certificate(directory.path());
    let error = psql(&at("sslmode=verify-full"), PASSWORD, "SELECT 1").unwrap_err();
    assert!(error.contains("certificate verify failed"), "{error}");
    // The new one is used after SIGHUP.
    server.signal("HUP");
    for _ in 0..100 {
        if psql(&at("sslmode=verify-full channel_binding=require"), PASSWORD, "SELECT 1") == one {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the new certificate is not used; the server printed:\n{}", server.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_and_unknown_users_are_told_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(directory.path()).await;
    let owner = server.connect().await;
    run(&owner, "CREATE ROLE anna LOGIN PASSWORD 'secret-of-anna'; CREATE ROLE group_only PASSWORD 'secret'").await;
    run(&owner, "CREATE ROLE late LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01'").await;
    let attempt = |user: &str, password: &str| {
        let address = format!("host=127.0.0.1 port={} user={user} password='{password}' dbname=tidegate", server.port());
        async move { tokio_postgres::connect(&address, NoTls).await.map(|(_, connection)| drop(tokio::spawn(connection))) }
    };
    assert!(attempt("anna", "secret-of-anna").await.is_ok());
    for (user, password) in [("anna", "secret-of-anne"), ("nobody", "secret"), ("late", "secret")] {
        let error = describe(&attempt(user, password).await.unwrap_err());
        assert_eq!(error, format!("28P01 password authentication failed for user \"{user}\""));
    }
    let error = describe(&attempt("group_only", "secret").await.unwrap_err());
    assert_eq!(error, "28000 role \"group_only\" is not permitted to log in");
    // Nothing of a password is anywhere but in its verifier, and that only superusers see.
    let shown = rows(&owner, "SELECT rolpassword FROM pg_authid WHERE rolname = 'anna'").await;
    assert!(shown[0][0].as_ref().unwrap().starts_with("SCRAM-SHA-256$4096:"));
    run(&owner, "SET ROLE anna").await;
    assert_eq!(rows(&owner, "SELECT rolpassword FROM pg_roles WHERE rolname = 'anna'").await[0][0].as_deref(), Some("********"));
    assert!(rows(&owner, "SELECT * FROM pg_authid").await.is_empty());
    assert!(!server.printed().contains("secret"), "{}", server.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_before_the_handshake_are_not_the_clients() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(directory.path()).await;
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    // Somebody between client and server puts a startup packet behind the client's question.
    socket.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x17\0\x03\0\0user\0tidegate\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await.expect("the connection ends");
    assert_eq!(answer.first(), Some(&b'S'));
    assert!(!answer.contains(&b'R'), "no authentication was begun: {answer:?}");
}

/// PostgreSQL 17's sslnegotiation=direct.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_encrypt_from_the_first_byte() {
    use rustls::pki_types::pem::PemObject;
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(directory.path()).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(directory.path().join("server.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    for (alpn, welcome) in [(Some("postgresql"), true), (Some("http/1.1"), false), (None, false)] {
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config.clone()));
        let socket = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let exchange = async {
            let mut stream = connector.connect("localhost".try_into().unwrap(), socket).await?;
            stream.write_all(b"\0\0\0\x17\0\x03\0\0user\0tidegate\0\0").await?;
            stream.read_u8().await
        };
        assert_eq!(exchange.await.ok(), welcome.then_some(b'R'), "{alpn:?}");
    }
}

#[test]
fn other_addresses_need_a_certificate_and_passwords() {
    let directory = tempfile::tempdir().unwrap();
    certificate(directory.path());
    let data = directory.path().join("data");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let start = |more: &[&str]| {
        let program = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
            .arg(&data)
            .args(more)
            .output()
            .unwrap();
        assert!(!program.status.success());
        String::from_utf8_lossy(&program.stderr).into_owned()
    };
    let text = start(&[]);
    for setting in ["--tls-cert", "TIDEGATE_TLS_KEY", "--auth scram-sha-256", "--password-file"] {
        assert!(text.contains(setting), "{setting}: {text}");
    }
    let text = start(&["--tls-cert", &path("server.crt"), "--tls-key", &path("server.key"), "--auth", "scram-sha-256"]);
    assert!(!text.contains("--tls-cert") && text.contains("--password-file"), "{text}");
    std::fs::set_permissions(path("server.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let text = start(&["--listen", "127.0.0.1:0", "--tls-cert", &path("server.crt"), "--tls-key", &path("server.key")]);
    assert!(text.contains("group or world access") || text.contains("cannot be used multiple times"), "{text}");
}

/// Whoever has not said who he is gets no memory for what he only promises to send.
#[tokio::test(flavor = "multi_thread")]
async fn promises_before_authentication_cost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(directory.path()).await;
    let resident = || -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    let mut sockets = Vec::new();
    for number in 0..100 {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        // A long startup packet; and a long answer to the question for the password.
        match number % 2 {
            0 => socket.write_all(b"\x7f\xff\xff\xff\0\x03\0\0").await.unwrap(),
            _ => {
                socket.write_all(b"\0\0\0\x17\0\x03\0\0user\0tidegate\0\0").await.unwrap();
                socket.write_all(b"p\x7f\xff\xff\xff").await.unwrap();
            }
        }
        sockets.push(socket);
    }
    for mut socket in sockets {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), socket.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "it is not closed");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

async fn session(server: &Server, user: &str) -> Client {
    let address = format!("host=127.0.0.1 port={} user={user} dbname=tidegate", server.port());
    let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What the role may do of everything that can be done to a table and a view, as letters.
async fn matrix(client: &Client) -> String {
    // With its schema: a name without one is looked up in schemas that the role may use.
    let attempts = [
        ('r', "SELECT * FROM public.t"),
        ('v', "SELECT * FROM public.v"),
        ('m', "SELECT * FROM public.mv"),
        ('s', "SELECT * FROM public.st"),
        ('a', "INSERT INTO public.t VALUES (9, 9)"),
        ('A', "INSERT INTO public.st VALUES (9)"),
        ('w', "UPDATE public.t SET x = 1 WHERE id = 9"),
        ('d', "DELETE FROM public.t WHERE id = 9"),
        ('D', "TRUNCATE public.t"),
        ('c', "COPY public.t TO STDOUT"),
        ('x', "EXPLAIN SELECT * FROM public.t"),
        ('V', "VERIFY public.mv"),
        ('L', "SELECT * FROM public.\"st$dead\""),
        ('q', "WITH q AS (SELECT * FROM public.t) SELECT (SELECT max(x) FROM q)"),
        ('o', "COMMENT ON TABLE public.t IS 'mine'"),
    ];
    let mut may = String::new();
    for (letter, sql) in attempts {
        let tried = match letter {
            'c' => client.copy_out(sql).await.map(drop),
            _ => try_rows(client, sql).await.map(drop),
        };
        match tried {
            Ok(()) => may.push(letter),
            Err(error) => assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{sql}: {}", describe(&error)),
        }
    }
    may
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_what_roles_may_do() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let owner = server.connect().await;
    run(
        &owner,
        "CREATE TABLE t (id INT PRIMARY KEY, x INT); INSERT INTO t VALUES (1, 1);
         CREATE STREAM st (x INT, at TIMESTAMP, WATERMARK FOR at);
         CREATE VIEW v AS SELECT x FROM t; CREATE MATERIALIZED VIEW mv AS SELECT x, COUNT(*) AS n FROM t GROUP BY x;
         CREATE ROLE readers; CREATE ROLE anna LOGIN IN ROLE readers; CREATE ROLE carl LOGIN NOINHERIT IN ROLE readers;
         CREATE ROLE dora LOGIN",
    )
    .await;
    let (anna, carl, dora) = (session(&server, "anna").await, session(&server, "carl").await, session(&server, "dora").await);
    assert_eq!(matrix(&anna).await, "");
    for (grant, anna_may, carl_may) in [
        ("GRANT SELECT ON t TO readers", "rcxq", ""),
        ("GRANT SELECT ON v, mv TO PUBLIC", "rvmcxVq", "vmV"),
        ("GRANT INSERT, UPDATE, DELETE ON TABLE t TO anna", "rvmawdcxVq", "vmV"),
        ("GRANT ALL ON st TO carl", "rvmawdcxVq", "vmsAV"),
        ("GRANT TRUNCATE ON t TO carl", "rvmawdcxVq", "vmsADV"),
        ("REVOKE SELECT ON t FROM readers", "vmaV", "vmsADV"),
        ("GRANT SELECT ON \"st$dead\" TO anna", "vmaVL", "vmsADV"),
        ("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM anna, carl, PUBLIC", "L", ""),
        ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "", ""),
        ("GRANT USAGE ON SCHEMA public TO PUBLIC", "L", ""),
    ] {
        run(&owner, grant).await;
        assert_eq!((matrix(&anna).await.as_str(), matrix(&carl).await.as_str()), (anna_may, carl_may), "{grant}");
    }
    // By whatever statement: without a privilege there is nothing to be had.
    for sql in [
        "SELECT * FROM TUMBLE(st, at, INTERVAL '1' MINUTE)",
        "SELECT * FROM t AS OF COMMIT 3",
        "SELECT * FROM t EMIT CHANGES",
        "SUBSCRIBE t",
        "SUBSCRIBE (SELECT * FROM t)",
        "PRINT st",
        "COPY st FROM STDIN",
        "COPY (SELECT * FROM t) TO STDOUT",
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t",
        "PREPARE p AS SELECT * FROM t",
        "INSERT INTO t SELECT * FROM t",
        "INSERT INTO t VALUES (1, 2) RETURNING id",
        "CREATE MATERIALIZED VIEW mine AS SELECT * FROM t",
        "EXPLAIN mv",
        "EXPLAIN CREATE MATERIALIZED VIEW mine AS SELECT x FROM t",
        "ANALYZE WATERMARK st",
        "SHOW CREATE TABLE t",
        "DESCRIBE t",
        "DROP TABLE t",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE t OWNER TO dora",
        "GRANT SELECT ON t TO dora",
        "REVOKE SELECT ON t FROM anna",
        "ALTER DEFAULT PRIVILEGES FOR ROLE tidegate GRANT SELECT ON TABLES TO dora",
        "REASSIGN OWNED BY anna TO dora",
        "DROP OWNED BY readers",
        "DROP ROLE anna",
        "GRANT tidegate TO dora",
        "ALTER ROLE dora SUPERUSER",
        "SELECT pg_terminate_backend(1)",
    ] {
        let error = try_rows(&dora, sql).await.expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{sql}: {}", describe(&error));
    }
    // Without INHERIT, carl has what readers have only as one of them.
    run(&owner, "GRANT SELECT ON t TO readers").await;
    run(&carl, "SET ROLE readers").await;
    assert_eq!(matrix(&carl).await, "rcxq");
    assert_eq!(rows(&carl, "SELECT current_user, session_user").await, [[Some("readers".to_string()), Some("carl".to_string())]]);
    assert_eq!(
        describe(&try_rows(&dora, "SET ROLE readers").await.unwrap_err()),
        "42501 permission denied to set role \"readers\""
    );
    // Nobody sees of what he may not touch.
    let seen = "SELECT count(*) FROM pg_class WHERE relname IN ('t', 'v', 'mv', 'st')";
    assert_eq!(rows(&dora, seen).await, [[Some("0".to_string())]]);
    assert_eq!(rows(&anna, seen).await, [[Some("1".to_string())]]);
    assert!(rows(&dora, "SHOW TABLES").await.is_empty());
    assert_eq!(
        rows(&dora, "SELECT has_table_privilege('t', 'SELECT'), has_table_privilege('anna', 't', 'SELECT')").await,
        [[Some("f".to_string()), Some("t".to_string())]]
    );
    // Prepared before, revoked since.
    let prepared = anna.prepare("SELECT * FROM t").await.unwrap();
    assert!(anna.query(&prepared, &[]).await.is_ok());
    run(&owner, "REVOKE SELECT ON t FROM readers").await;
    assert_eq!(describe(&anna.query(&prepared, &[]).await.unwrap_err()), "42501 permission denied for table t");
    server_restarts_with_the_same_rights(server, directory.path()).await;
}

async fn server_restarts_with_the_same_rights(mut server: Server, _directory: &Path) {
    let owner = server.connect().await;
    run(&owner, "GRANT SELECT ON mv TO dora WITH GRANT OPTION").await;
    let before = rows(&owner, "SELECT relname, relacl::text FROM pg_class WHERE relacl IS NOT NULL ORDER BY 1").await;
    drop(owner);
    server.terminate().await;
    server.restart();
    server.ready().await;
    let owner = server.connect().await;
    assert_eq!(rows(&owner, "SELECT relname, relacl::text FROM pg_class WHERE relacl IS NOT NULL ORDER BY 1").await, before);
    assert_eq!(matrix(&session(&server, "dora").await).await, "mV");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_has_no_more_sessions_than_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let environment = vec![("TIDEGATE_MAX_CONNECTIONS", "8".to_string())];
    let server = Server::start(directory.path(), Settings { environment, ..Settings::default() }).await;
    let owner = server.connect().await;
    run(&owner, "CREATE ROLE anna LOGIN CONNECTION LIMIT 2; CREATE ROLE carl LOGIN").await;
    let attempt = |user: &str| {
        let address = format!("host=127.0.0.1 port={} user={user} dbname=tidegate", server.port());
        async move {
            let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
            tokio::spawn(connection);
            Ok::<Client, tokio_postgres::Error>(client)
        }
    };
    let _annas = (attempt("anna").await.unwrap(), attempt("anna").await.unwrap());
    assert_eq!(describe(&attempt("anna").await.err().unwrap()), "53300 too many connections for role \"anna\"");
    let mut carls = Vec::new();
    let refused = loop {
        match attempt("carl").await {
            Ok(client) => carls.push(client),
            Err(error) => break describe(&error),
        }
        assert!(carls.len() < 8, "nothing bounds the sessions");
    };
    assert_eq!(refused, "53300 remaining connection slots are reserved for superuser connections");
    assert!(attempt("tidegate").await.is_ok(), "a superuser still comes in");
}
