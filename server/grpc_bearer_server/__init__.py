"""The service: `IdentityService` behind the interceptor, and the command `grpc-bearer`. Needs `grpc-bearer[server]`."""
