//! gRPC probes: one `grpc.health.v1.Health/Check` over a new connection.
//!
//! `SERVING` is healthy and everything else failed, `UNKNOWN` and a server without the health service included.

use std::sync::Arc;

use rebound_schemas::event::ErrorClass;
use rebound_schemas::plan::GrpcCheck;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::fault::{Fault, Stage};
use super::trust::{Chain, Verifier};
use super::{Verdict, Wrong, wrong};

/// A compiled gRPC health check.
#[derive(Debug)]
pub(super) struct GrpcProbe {
    endpoint: Endpoint,
    service: String,
}

/// What the server answered: a status of the health service, or an error of gRPC.
#[derive(Debug)]
pub(super) enum GrpcAnswer {
    Status(i32),
    Error(Status),
}

impl GrpcProbe {
    pub(super) fn new(check: &GrpcCheck, chain: &Arc<Chain>) -> Result<Self, Wrong> {
        let reason = |e: tonic::transport::Error| wrong("url", Fault::from_error(&e, ErrorClass::Unknown).reason);
        let mut endpoint = Endpoint::from_shared(check.url.to_string()).map_err(reason)?;
        if check.url.scheme() == "https" {
            let verifier = Verifier::new(None, false, chain)?;
            endpoint = endpoint.tls_config_with_verifier(ClientTlsConfig::new(), verifier).map_err(reason)?;
        }
        Ok(Self { endpoint, service: check.service.clone() })
    }

    pub(super) async fn ask(&self, stage: &Stage) -> Result<GrpcAnswer, Fault> {
        let channel = self.endpoint.connect().await.map_err(|e| Fault::from_error(&e, ErrorClass::Network))?;
        stage.enter(Stage::WAITING);
        let request = HealthCheckRequest { service: self.service.clone() };
        match HealthClient::new(channel).check(request).await {
            Ok(answer) => Ok(GrpcAnswer::Status(answer.into_inner().status)),
            Err(status) => Ok(GrpcAnswer::Error(status)),
        }
    }

    pub(super) fn judge(&self, answer: &GrpcAnswer) -> Verdict {
        let of = match self.service.as_str() {
            "" => "the server".to_owned(),
            name => format!("the service {name:?}"),
        };
        match answer {
            GrpcAnswer::Status(number) => match ServingStatus::try_from(*number) {
                Ok(ServingStatus::Serving) => Verdict::healthy(),
                Ok(ServingStatus::ServiceUnknown) => {
                    Verdict::failed(ErrorClass::Configuration, format!("{of} is SERVICE_UNKNOWN"))
                }
                Ok(status) => Verdict::failed(ErrorClass::Dependency, format!("{of} is {}", status.as_str_name())),
                Err(_) => Verdict::failed(ErrorClass::DataIntegrity, format!("{of} has the unknown status {number}")),
            },
            GrpcAnswer::Error(status) => {
                let class = match status.code() {
                    Code::NotFound | Code::Unimplemented | Code::InvalidArgument => ErrorClass::Configuration,
                    Code::PermissionDenied | Code::Unauthenticated => ErrorClass::Security,
                    Code::DeadlineExceeded => ErrorClass::Timeout,
                    Code::ResourceExhausted => ErrorClass::ResourceConstraint,
                    Code::Unavailable => ErrorClass::Network,
                    Code::DataLoss => ErrorClass::DataIntegrity,
                    _ => ErrorClass::Unknown,
                };
                Verdict::failed(class, format!("{of} answered {:?}: {}", status.code(), status.message()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{self, run};
    use super::*;
    use rebound_schemas::event::Outcome;
    use rebound_schemas::plan::Check;
    use tonic::transport::server::TcpIncoming;

    fn check(address: &str, service: &str) -> GrpcCheck {
        GrpcCheck { url: format!("http://{address}").parse().unwrap(), service: service.into() }
    }

    #[test]
    fn statuses_and_codes_decide() {
        let probe = GrpcProbe { endpoint: Endpoint::from_static("http://x"), service: String::new() };
        let judge = |answer| probe.judge(&answer).error_class;
        assert_eq!(judge(GrpcAnswer::Status(1)), None);
        assert_eq!(judge(GrpcAnswer::Status(0)), Some(ErrorClass::Dependency));
        assert_eq!(judge(GrpcAnswer::Status(2)), Some(ErrorClass::Dependency));
        assert_eq!(judge(GrpcAnswer::Status(3)), Some(ErrorClass::Configuration));
        assert_eq!(judge(GrpcAnswer::Status(9)), Some(ErrorClass::DataIntegrity));
        let code = |code| judge(GrpcAnswer::Error(Status::new(code, "")));
        assert_eq!(code(Code::Unimplemented), Some(ErrorClass::Configuration));
        assert_eq!(code(Code::Unauthenticated), Some(ErrorClass::Security));
        assert_eq!(code(Code::Unavailable), Some(ErrorClass::Network));
        assert_eq!(code(Code::Internal), Some(ErrorClass::Unknown));
    }

    #[tokio::test]
    async fn a_real_server_is_asked() {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("up", tonic_health::ServingStatus::Serving).await;
        reporter.set_service_status("down", tonic_health::ServingStatus::NotServing).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let probe = async |service: &str| run(Check::Grpc(check(&address, service)), Duration::from_secs(20)).await;
        assert_eq!(probe("").await.outcome, Outcome::Healthy);
        assert_eq!(probe("up").await.outcome, Outcome::Healthy);
        let found = probe("down").await;
        assert_eq!(found.reason.as_deref(), Some("the service \"down\" is NOT_SERVING"));
        let found = probe("nobody").await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Configuration)));
    }

    #[tokio::test]
    async fn nobody_there_and_another_protocol_fail() {
        let nobody = testing::closed_port().await.to_string();
        let found = run(Check::Grpc(check(&nobody, "")), Duration::from_secs(20)).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Network)), "{found:?}");
        let http = testing::serve(axum::Router::new()).await;
        let address = http.strip_prefix("http://").unwrap();
        let found = run(Check::Grpc(check(address, "")), Duration::from_secs(20)).await;
        assert_eq!(found.outcome, Outcome::Failed, "a web server without gRPC: {found:?}");
    }
}
