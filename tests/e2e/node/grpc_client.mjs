// A grpc-js client of matrix.v1.MatrixService.
//
//   node grpc_client.mjs TARGET PROTO_FILE  < calls  > outcomes
//
// Both are JSON lists. A call is {method, token}, with null for no token. Its outcome is what the caller of grpc-js gets to
// see: {code, message, responses, details, challenge}, where details is the grpc-status-details-bin trailer in base64.
// Calls are made one after another, each with two requests where the method streams them.
import { readFileSync } from 'node:fs';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const [target, protoFile] = process.argv.slice(2);
const { MatrixService } = grpc.loadPackageDefinition(protoLoader.loadSync(protoFile)).matrix.v1;
const client = new MatrixService(target, grpc.credentials.createInsecure());
const REQUESTS = [{ text: 'a', count: 2 }, { text: 'b', count: 2 }];

function call({ method, token }) {
  const metadata = new grpc.Metadata();
  if (token !== null) metadata.set('authorization', `Bearer ${token}`);
  const options = { deadline: Date.now() + 10_000 };
  const { requestStream, responseStream } = client[method];

  return new Promise((resolve) => {
    const responses = [];
    let rpc;
    const args = [metadata, options];
    if (!requestStream) args.unshift(REQUESTS[0]);
    if (!responseStream) args.push((_error, response) => response && responses.push(response));
    rpc = client[method](...args);
    if (responseStream) rpc.on('data', (response) => responses.push(response)).on('error', () => {});
    rpc.on('status', ({ code, details, metadata: trailers }) => resolve({ // the last that comes, after every response
      code,
      message: details,
      responses,
      details: trailers.get('grpc-status-details-bin')[0]?.toString('base64') ?? null,
      challenge: trailers.get('www-authenticate')[0] ?? null,
    }));
    if (requestStream) {
      for (const request of REQUESTS) rpc.write(request);
      rpc.end();
    }
  });
}

const outcomes = [];
for (const each of JSON.parse(readFileSync(0))) outcomes.push(await call(each));
client.close();
console.log(JSON.stringify(outcomes));
