// Verifies the tokens of a file over and over, when told to: one JSON command a line of standard input, one answer a line.
//   {"contender": "jose", "algorithm": "RS256", "file": ..., "jwksUri": ..., "issuer": ..., "audience": ...}
//   -> {"calls": 1000, "cpuNs": ...}
// It ends with its standard input.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import jsonwebtoken from 'jsonwebtoken';
import jwksRsa from 'jwks-rsa';

const verifiers = {
  // As jwks-rsa's documentation has it, with its cache on.
  'jsonwebtoken + jwks-rsa': ({ algorithm, jwksUri, issuer, audience }) => {
    const client = jwksRsa({ jwksUri, cache: true });
    const getKey = (header, callback) =>
      client.getSigningKey(header.kid, (error, key) => callback(error, key?.getPublicKey()));
    const options = { algorithms: [algorithm], issuer, audience };
    return (token) =>
      new Promise((resolve, reject) => {
        jsonwebtoken.verify(token, getKey, options, (error, claims) => (error ? reject(error) : resolve(claims)));
      });
  },
  jose: ({ algorithm, jwksUri, issuer, audience }) => {
    const keys = createRemoteJWKSet(new URL(jwksUri));
    const options = { algorithms: [algorithm], issuer, audience };
    return (token) => jwtVerify(token, keys, options);
  },
};

const ready = new Map();

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const name = `${command.contender} ${command.algorithm}`;
  if (!ready.has(name)) {
    ready.set(name, {
      verify: verifiers[command.contender](command),
      tokens: readFileSync(command.file, 'ascii').split('\n'),
    });
  }
  const { verify, tokens } = ready.get(name);
  const before = process.cpuUsage();
  for (const token of tokens) await verify(token);
  const used = process.cpuUsage(before);
  console.log(JSON.stringify({ calls: tokens.length, cpuNs: 1000 * (used.user + used.system) }));
}
