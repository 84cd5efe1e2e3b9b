// A real OpenID provider for the tests: npm's certified `oidc-provider` on loopback, told what to do on standard input.
//
//   oidc_provider.mjs KEYS [PORT]     KEYS is a file for the private keys, so that a provider can be started again
//
// One JSON object per line on standard output: `{"issuer": …}` when it is ready, then the answer to each command:
//   rotate     sign with a new key (RS256 and ES256 by turns), still publish the old ones
//   remove     publish the newest key only
//   ttl N      access tokens live for N seconds from now on
//   fetches    how often the JWKS was fetched

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

// Its notices would be mistaken for answers.
console.info = console.warn = console.log = console.error;
const modules = new URL('../../.node/node_modules/', import.meta.url);
const { default: Provider } = await import(new URL('oidc-provider/lib/index.js', modules));

const RESOURCE = 'urn:interposer';
const GROUPS = { alice: ['support'], carol: ['support'], bob: [] };
const [keyFile, wantedPort = '0'] = process.argv.slice(2);

let keys = existsSync(keyFile) ? JSON.parse(readFileSync(keyFile, 'utf8')) : [];
let ttl = 600;
let fetches = 0;
let handle;

function addKey() {
  const alg = keys.length % 2 === 0 ? 'RS256' : 'ES256';
  const pair = alg === 'RS256'
    ? generateKeyPairSync('rsa', { modulusLength: 2048 })
    : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const kid = randomBytes(8).toString('hex');
  keys.push({ ...pair.privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' });
}

// What the provider remembers, whichever set of keys it stands with.
const remembered = new Map();

class Memory {
  constructor(model) { this.model = model; }

  of(id) { return `${this.model} ${id}`; }

  async upsert(id, payload) { remembered.set(this.of(id), payload); }

  async find(id) { return remembered.get(this.of(id)); }

  async findByUid(uid) {
    return [...remembered].find(([key, { uid: its }]) => key.startsWith(`${this.model} `) && its === uid)?.[1];
  }

  async findByUserCode() { return undefined; }

  async consume(id) { remembered.get(this.of(id)).consumed = Math.floor(Date.now() / 1000); }

  async destroy(id) { remembered.delete(this.of(id)); }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of remembered) {
      if (payload.grantId === grantId) remembered.delete(key);
    }
  }
}

function configuration() {
  const { alg, kid } = keys.at(-1);
  return {
    adapter: Memory,
    jwks: { keys },
    clients: [{
      client_id: 'agent',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['http://127.0.0.1/callback'],
      id_token_signed_response_alg: alg,
    }],
    cookies: { keys: ['for tests only'] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (_, token) => ({ groups: GROUPS[token.accountId] ?? [] }),
    issueRefreshToken: () => true,
    features: {
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: '',
          audience: 'interposer',
          accessTokenFormat: 'jwt',
          accessTokenTTL: ttl,
          jwt: { sign: { alg, kid } },
        }),
      },
    },
  };
}

// A provider cannot change its keys while it runs, so another one takes its place.
function stand() {
  writeFileSync(keyFile, JSON.stringify(keys), { mode: 0o600 });
  handle = new Provider(issuer, configuration()).callback();
}

function obey(line) {
  const [command, value] = line.trim().split(' ');
  if (command === 'rotate') {
    addKey();
    stand();
  } else if (command === 'remove') {
    keys = keys.slice(-1);
    stand();
  } else if (command === 'ttl') {
    ttl = Number(value);
  } else if (command !== 'fetches') {
    return { error: `unknown command ${command}` };
  }
  return { kids: keys.map(({ kid }) => kid), ttl, fetches };
}

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const server = createServer((request, response) => {
  if (request.url === '/jwks') fetches += 1;
  handle(request, response);
});
await new Promise((resolve) => { server.listen(Number(wantedPort), '127.0.0.1', resolve); });
const issuer = `http://127.0.0.1:${server.address().port}`;
if (keys.length === 0) addKey();
stand();
say({ issuer, resource: RESOURCE });
createInterface({ input: process.stdin })
  .on('line', (line) => say(obey(line)))
  .on('close', () => process.exit(0));
