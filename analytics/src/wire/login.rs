//! How a connection begins: whether there is room, TLS wherever there is any, and a password by SCRAM-SHA-256 where
//! one is set.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramAuth, gen_salted_password};
use datafusion_postgres::pgwire::api::auth::{
    AuthSource, DefaultServerParameterProvider, LoginInfo, Password, StartupHandler, finish_authentication,
    protocol_negotiation, save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::{
    ClientInfo, PgWireConnectionState, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::startup::SecretKey;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;

use super::run::{Connections, Key, Present, key};
use super::{SERVER_VERSION, Server, fatal};

/// What a connection goes through before its first statement.
pub(super) struct Startup {
    /// The connections that there may be, if this is one too many.
    full: Option<usize>,
    needs_tls: bool,
    asks: Asks,
    /// Where it can be cancelled, once it has begun.
    connections: Arc<Connections>,
    present: Arc<Present>,
    key: Mutex<Option<Key>>,
}

enum Asks {
    /// Nothing: everybody is let in.
    Nothing(Box<DefaultServerParameterProvider>),
    /// For a password.
    Password(Box<SASLAuthStartupHandler<DefaultServerParameterProvider>>),
}

/// Numbers for all connections of the process, each of its own.
#[derive(Debug)]
struct Pids;

impl PidSecretKeyGenerator for Pids {
    fn generate(&self, client: &dyn ClientInfo) -> (i32, SecretKey) {
        static PIDS: LazyLock<RandomPidSecretKeyGenerator> = LazyLock::new(RandomPidSecretKeyGenerator::default);
        PIDS.generate(client)
    }
}

fn parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version = format!("{SERVER_VERSION} (Rebound {})", env!("CARGO_PKG_VERSION"));
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    "UTC".clone_into(&mut parameters.time_zone);
    "ISO, MDY".clone_into(&mut parameters.date_style);
    parameters
}

impl Startup {
    pub(super) fn new(server: &Server, present: Arc<Present>, admitted: bool) -> std::io::Result<Self> {
        let settings = &server.settings;
        let asks = match &settings.login {
            None => Asks::Nothing(Box::new(parameters())),
            Some((user, password)) => {
                let login = Login { user: user.clone(), password: password.clone() };
                let mut scram = ScramAuth::new(Arc::new(login));
                scram.set_iterations(SCRAM_ITERATIONS);
                if let Some((certificate, _)) = &settings.tls {
                    // Without a binding to the channel where its signature's kind is not known.
                    let _ = scram.configure_certificate(certificate);
                }
                let handler = SASLAuthStartupHandler::new(Arc::new(parameters()))
                    .with_scram(scram)
                    .with_pid_secret_key_generator(Arc::new(Pids));
                Asks::Password(Box::new(handler))
            }
        };
        Ok(Self {
            full: (!admitted).then_some(settings.max_connections),
            needs_tls: settings.tls.is_some(),
            asks,
            connections: server.connections.clone(),
            present,
            key: Mutex::default(),
        })
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        if let Some(key) = self.key.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.connections.remove(&key);
        }
    }
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let Some(limit) = self.full {
            let message =
                format!("all {limit} connections are taken: close some, come later, or raise [sql] max_connections");
            return Err(fatal("53300", message));
        }
        if self.needs_tls && !client.is_secure() {
            return Err(fatal("28000", "this server speaks TLS only: connect with sslmode=require or stronger"));
        }
        match (&self.asks, message) {
            (Asks::Password(password), message) => password.on_startup(client, message).await?,
            (Asks::Nothing(parameters), PgWireFrontendMessage::Startup(startup)) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                let (pid, secret) = Pids.generate(client);
                client.set_pid_and_secret_key(pid, secret);
                finish_authentication(client, parameters.as_ref()).await?;
            }
            (Asks::Nothing(_), _) => return Err(fatal("08P01", "the first message is not a startup message")),
        }
        if matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            let (pid, secret) = client.pid_and_secret_key();
            let key = key(pid, &secret);
            *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
            self.connections.add(key, self.present.clone());
        }
        Ok(())
    }
}

/// The one who may connect.
struct Login {
    user: String,
    password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[async_trait]
#[expect(elided_lifetimes_in_paths, reason = "the trait leaves it out too, and async_trait minds the difference")]
impl AuthSource for Login {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        // For anybody else one that nobody knows: who there is can't be found out by trying.
        let nobodys = data(&rand::random::<[u8; 32]>());
        let password = if login.user() == Some(self.user.as_str()) { &self.password } else { &nobodys };
        let salt = rand::random::<[u8; 16]>().to_vec();
        let hash = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
        Ok(Password::new(Some(salt), hash))
    }
}

fn data(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
