use super::super::tests::{breaks_off, closed, deaf, echo, target};
use super::*;
use task::Tasks;

/// A connection that runs; what it is told, and where its client's words go.
struct Client {
    input: mpsc::UnboundedSender<Piece>,
    told: mpsc::Receiver<((), Said)>,
}

async fn connect(tasks: &Tasks, port: u16) -> Client {
    let target = target(tasks).await;
    let (input, from_client) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::channel(4);
    tasks.spawn("relay", async move { relay(&target, ((), port), from_client, tell).await });
    Client { input, told }
}

impl Client {
    fn says(&self, bytes: &'static [u8]) {
        self.input.send(Piece { bytes: Bytes::from_static(bytes), room: None }).unwrap();
    }

    async fn hears(&mut self) -> Option<Said> {
        self.told.recv().await.map(|((), said)| said)
    }

    async fn hears_data(&mut self, bytes: &[u8]) {
        let mut heard = Vec::new();
        while heard.len() < bytes.len() {
            let Some(Said::Data(piece)) = self.hears().await else { panic!("ended early") };
            heard.extend_from_slice(&piece[HEADROOM..]);
        }
        assert_eq!(heard, bytes);
    }
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let tasks = Tasks::new();
    let mut client = connect(&tasks, echo(&tasks).await).await;
    client.says(b"one");
    client.hears_data(b"one").await;
    client.says(b"two");
    client.says(b"");
    client.hears_data(b"two").await;
    assert_eq!(client.hears().await, Some(Said::End));
    assert_eq!(client.hears().await, None);
}

#[tokio::test]
async fn a_refused_connection_is_told_in_words_that_users_search_for() {
    let tasks = Tasks::new();
    let port = closed().await;
    let mut client = connect(&tasks, port).await;
    let Some(Said::Failed(why)) = client.hears().await else { panic!("connected") };
    let expected = format!(
        "error forwarding port {port} to pod u1-0, uid : failed to execute portforward in network namespace \"u1-0\": failed \
         to connect to localhost:{port} inside namespace \"u1-0\", IPv4: dial tcp4 127.0.0.1:{port}: connect: connection \
         refused IPv6 dial tcp6 [::1]:{port}: connect: "
    );
    assert!(why.starts_with(&expected), "{why}");
    assert_eq!(client.hears().await, None);
}

#[tokio::test]
async fn a_connection_that_the_pod_breaks_off_is_told_as_such() {
    let tasks = Tasks::new();
    let mut client = connect(&tasks, breaks_off(&tasks).await).await;
    client.says(b"x");
    assert_eq!(client.hears().await, Some(Said::Reset));
}

#[tokio::test]
async fn a_client_that_gives_up_ends_the_connection_also_of_a_pod_that_does_not_read() {
    let tasks = Tasks::new();
    let mut client = connect(&tasks, deaf(&tasks).await).await;
    client.hears_data(b"hello").await;
    for _ in 0..200 {
        client.says(&[0; 64 << 10]);
    }
    let Client { input, mut told } = client;
    drop(input);
    assert_eq!(told.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn who_has_ended_its_direction_is_not_waited_for_without_end() {
    let (_told, hears) = watch::channel(true);
    let (tell, _listen) = mpsc::channel(1);
    let (silent, _pod) = tokio::io::duplex(16);
    assert_eq!(carry_down(silent, ((), &tell), hears).await, Some(Said::End));
}

#[tokio::test]
async fn a_pod_that_is_gone_has_no_ports() {
    let tasks = Tasks::new();
    let target = target(&tasks).await;
    target.runtime.remove_sandbox(&target.sandbox).await.unwrap();
    let why = dial(&target, 80).await.unwrap_err();
    assert!(why.contains("sandbox u1-0 does not exist"), "{why}");
}
