// An OpenID provider on loopback (oidc-provider, certified, not ours) that rotates its signing keys on command.
//
// Prints one JSON object per line: first {issuer}, then one in answer to each line on stdin:
//   rotate  makes a new generation of keys and signs with it from now on; the old ones stay published
//   drop    takes all but the newest generation out of the JWK Set
//   report  changes nothing
// Each answer is {published, requests}: the kids in the JWK Set, and how often each path has been asked for so far.
// Ends with its stdin.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import Provider from 'oidc-provider';

const KEY_PAIRS = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
  Ed25519: () => generateKeyPairSync('ed25519'), // the same by its name in RFC 9864
};

// Tokens are JWTs and clients are configured: nothing needs to be kept.
class NoStorage {
  async upsert() {}
  async find() {}
  async destroy() {}
}

const newGeneration = (number) => Object.entries(KEY_PAIRS).map(([alg, make]) => ({
  ...make().privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-${number}`,
}));

// A resource is https://orders.example/<alg>: the client chooses with which key its token is signed.
const resourceServer = (_ctx, resource) => ({
  audience: 'orders',
  scope: 'orders.read orders.write',
  accessTokenFormat: 'jwt',
  jwt: { sign: { alg: new URL(resource).pathname.slice(1) } },
});

const newProvider = (issuer, keys) => new Provider(issuer, {
  adapter: NoStorage,
  jwks: { keys: structuredClone(keys) },
  clients: [{
    client_id: 'client-1', client_secret: 'secret-1', grant_types: ['client_credentials'],
    redirect_uris: [], response_types: [],
  }],
  scopes: ['orders.read', 'orders.write'],
  ttl: { ClientCredentials: 60 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
  },
}).callback();

console.info = console.error; // its notices: stdout is for our own lines
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const requests = {};
let generation = 1;
let keys = newGeneration(generation);
let handle;

const server = createServer((request, response) => {
  requests[request.url] = (requests[request.url] ?? 0) + 1;
  handle(request, response);
});

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  handle = newProvider(issuer, keys);
  say({ issuer });

  const commands = {
    rotate() {
      generation += 1;
      keys = [...newGeneration(generation), ...keys]; // the provider signs with the first that fits
      handle = newProvider(issuer, keys);
    },
    drop() {
      keys = keys.slice(0, Object.keys(KEY_PAIRS).length);
      handle = newProvider(issuer, keys);
    },
    report() {},
  };
  createInterface({ input: process.stdin })
    .on('line', (command) => {
      commands[command]();
      say({ published: keys.map(({ kid }) => kid), requests });
    })
    .on('close', () => process.exit());
});
