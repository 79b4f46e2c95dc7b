//! `tracelake.v1.PriceService`: what models cost.

use tonic::{Request, Response, Status};

use super::super::Doors;
use super::super::prices::{check_price, delete_prices, list_prices, put_prices};
use super::passed;
use crate::wire::price_service_server::PriceService;
use crate::wire::{
    CheckPriceRequest, CheckPriceResponse, DeletePricesRequest, DeletePricesResponse, ListPricesRequest,
    ListPricesResponse, PutPricesRequest, PutPricesResponse,
};

pub(super) struct PriceDesk(pub(super) Doors);

#[tonic::async_trait]
impl PriceService for PriceDesk {
    async fn list_prices(&self, request: Request<ListPricesRequest>) -> Result<Response<ListPricesResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let prices = self.0.prices.current(&caller.tenant);
        Ok(Response::new(list_prices(&prices, request.get_ref())))
    }

    async fn check_price(&self, request: Request<CheckPriceRequest>) -> Result<Response<CheckPriceResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let prices = self.0.prices.current(&caller.tenant);
        Ok(Response::new(check_price(&prices, request.get_ref(), self.0.prices.now_us())?))
    }

    async fn put_prices(&self, request: Request<PutPricesRequest>) -> Result<Response<PutPricesResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let by = &caller.who.public_key;
        Ok(Response::new(put_prices(&self.0.prices, &caller.tenant, by, request.into_inner()).await?))
    }

    async fn delete_prices(
        &self,
        request: Request<DeletePricesRequest>,
    ) -> Result<Response<DeletePricesResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let by = &caller.who.public_key;
        Ok(Response::new(delete_prices(&self.0.prices, &caller.tenant, by, request.into_inner()).await?))
    }
}
