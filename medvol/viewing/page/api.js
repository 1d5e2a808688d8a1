// The interface of the server: JSON requests, and jobs that take their time.

export class Refusal extends Error {
  constructor(status, error) {
    super(error.detail);
    this.status = status;
    this.kind = error.kind;
  }
}

// The server does not answer at all.
export class Gone extends Error {}

export class Cancelled extends Error {}

async function request(method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Gone("the server does not answer");
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Refusal(response.status, content.error ?? { kind: "Error", detail: `the server answered ${response.status}` });
  }
  return content;
}

export const get = (path) => request("GET", path);
export const put = (path, body) => request("PUT", path, body);
export const drop = (path) => request("DELETE", path);

// Start a job and wait for its result; `tell` hears how far it is, and `started` its id, so that it can be cancelled.
export async function run(path, body, tell = () => {}, started = () => {}) {
  let told = await request("POST", path, body);
  started(told.job);
  while (told.state === "waiting" || told.state === "running") {
    tell(told.progress, told.title);
    told = await request("GET", `api/jobs/${told.job}?wait=1`);
  }
  tell(null);
  if (told.state === "cancelled") throw new Cancelled("cancelled");
  return told.result;
}

export const cancel = (job) => request("DELETE", `api/jobs/${job}`).catch(() => {});

export async function voxels(scan, first, count) {
  let response;
  try {
    response = await fetch(`api/scans/${scan}/voxels?first=${first}&count=${count}`);
  } catch {
    throw new Gone("the server does not answer");
  }
  if (!response.ok) throw new Refusal(response.status, (await response.json()).error);
  return new Int16Array(await response.arrayBuffer());
}
