// The TypeScript client as `sdk` says: `v2` (@modelcontextprotocol/client) or `v1` (@modelcontextprotocol/sdk). With
// `links` it negotiates the era and declares that it can show a link.

import { createInterface } from 'node:readline';

const modules = new URL('../../../../.node/node_modules/@modelcontextprotocol/', import.meta.url);
const at = (path) => import(new URL(path, modules));
const wanted = JSON.parse(process.argv[2]);
const say = (event, more) => process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const v2 = wanted.sdk === 'v2';
const { Client } = await at(v2 ? 'client/dist/index.mjs' : 'sdk/dist/esm/client/index.js');
const { StdioClientTransport } = await at(v2 ? 'client/dist/stdio.mjs' : 'sdk/dist/esm/client/stdio.js');

const options = wanted.links
  ? { capabilities: { elicitation: { url: {} } }, versionNegotiation: { mode: 'auto' } }
  : undefined;
const client = new Client({ name: `some-agent-${wanted.sdk}`, version: '1.0.0' }, options);
if (wanted.links) {
  client.setRequestHandler('elicitation/create', async (request) => {
    say('link', { url: request.params.url, message: request.params.message });
    return { action: 'accept' };
  });
}
const [command, ...args] = wanted.command;
await client.connect(new StdioClientTransport({ command, args, env: wanted.env, stderr: 'inherit' }));
say('listed', { tools: (await client.listTools()).tools.map((tool) => tool.name) });
for (;;) {
  const result = await client.callTool({ name: 'echo', arguments: wanted.arguments });
  const pending = result._meta?.['interposer/pending'];
  if (pending === undefined) {
    say('result', { text: result.content[0].text, error: result.isError === true });
    break;
  }
  say('ticket', { id: pending.approval_id });
  await lines.next();
}
await client.close();
process.exit(0);
