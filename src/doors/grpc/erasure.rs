//! `tracelake.v1.ErasureService`: forgetting, and how far it has come.

use tonic::{Request, Response, Status};

use super::super::{Doors, Refusal};
use super::passed;
use crate::base::Kind;
use crate::catalog::erasures::{self, ErasureStatus};
use crate::wire::erasure_service_server::ErasureService;
use crate::wire::{
    EraseRequest, EraseResponse, Erasure, ErasureKind, ErasureState, GetErasureRequest, GetErasureResponse,
    ListErasuresRequest, ListErasuresResponse,
};

pub(super) struct Erasures(pub(super) Doors);

#[tonic::async_trait]
impl ErasureService for Erasures {
    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let EraseRequest { kind, values } = request.into_inner();
        let kind = match ErasureKind::try_from(kind) {
            Ok(ErasureKind::Trace) => erasures::ErasureKind::Trace,
            Ok(ErasureKind::Session) => erasures::ErasureKind::Session,
            Ok(ErasureKind::User) => erasures::ErasureKind::User,
            Ok(ErasureKind::Tenant) => erasures::ErasureKind::Tenant,
            Ok(ErasureKind::Score) => erasures::ErasureKind::Score,
            Ok(ErasureKind::Unspecified) | Err(_) => {
                let message = "kind says what is erased: TRACE, SESSION, USER, TENANT or SCORE";
                return Err(Refusal::new(Kind::Invalid, message).into());
            }
        };
        let status = self.0.erasing.erase(&caller.who, kind, values).await?;
        Ok(Response::new(EraseResponse { erasure: Some(told(status)) }))
    }

    async fn get_erasure(&self, request: Request<GetErasureRequest>) -> Result<Response<GetErasureResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let status = self.0.erasing.erasure(&caller.who, &request.into_inner().id).await?;
        Ok(Response::new(GetErasureResponse { erasure: Some(told(status)) }))
    }

    async fn list_erasures(
        &self,
        request: Request<ListErasuresRequest>,
    ) -> Result<Response<ListErasuresResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let all = self.0.erasing.erasures(&caller.who).await?;
        Ok(Response::new(ListErasuresResponse { erasures: all.into_iter().map(told).collect() }))
    }
}

fn told(status: ErasureStatus) -> Erasure {
    let erasure = status.erasure;
    let kind = match erasure.kind {
        erasures::ErasureKind::Trace => ErasureKind::Trace,
        erasures::ErasureKind::Session => ErasureKind::Session,
        erasures::ErasureKind::User => ErasureKind::User,
        erasures::ErasureKind::Tenant => ErasureKind::Tenant,
        erasures::ErasureKind::Score => ErasureKind::Score,
    };
    let state = match status.state {
        erasures::ErasureState::Asked => ErasureState::Asked,
        erasures::ErasureState::Masked => ErasureState::Masked,
        erasures::ErasureState::Rewritten => ErasureState::Rewritten,
        erasures::ErasureState::Done => ErasureState::Done,
    };
    Erasure {
        id: erasure.id.clone(),
        kind: kind.into(),
        subjects: erasure.subjects.clone(),
        state: state.into(),
        asked_by: erasure.asked_by.clone(),
        asked_unix_micros: erasure.asked_us,
        refused_until_unix_micros: erasure.until_us,
        rewritten_unix_micros: status.rewritten_us,
        done_unix_micros: status.done_us,
        rows: status.rows.into_iter().collect(),
        files_rewritten: status.files,
        copies: status.copies,
    }
}
