// Asks the API. The token, if there is one, is kept by this tab only and said in a header: never in a cookie or a URL.

const KEY = 'lictor-token';

export class Refused extends Error {
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

// A loop that hangs is no reason for a page to hang.
const PATIENCE_MS = 8000;

async function send(path, options = {}) {
  const headers = { 'x-lictor-console': '1' };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  const answer = await fetch(`/api/v1/${path}`, { ...options, headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await answer.json().catch(() => ({}));
  return { status: answer.status, body };
}

export async function ask(path) {
  const { status, body } = await send(path);
  if (status !== 200) throw new Refused(status, body.error ?? `the answer is ${status}`);
  return body;
}

// What has come of it: `{applied, text}`, also if the rules were refused.
export async function reload() {
  const { status, body } = await send('reload', { method: 'POST' });
  if (status !== 200 && status !== 422) throw new Refused(status, body.error ?? `the answer is ${status}`);
  return body;
}
