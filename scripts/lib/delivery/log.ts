/** Structured lines for journald: its priority, what happened, and `key=value` for what and how. */
export interface Log {
  info(event: string, about?: About): void
  warn(event: string, about?: About): void
}

type About = Record<string, string | number | undefined>

/** Writes to standard error, where systemd takes `<6>` and `<4>` for priorities (sd-daemon(3)). */
export function journalLog(): Log {
  const under = process.env.JOURNAL_STREAM !== undefined
  const write = (priority: number, event: string, about: About = {}): void => {
    const pairs = Object.entries(about).filter(([, value]) => value !== undefined)
    const words = pairs.map(([key, value]) => `${key}=${wordOf(value ?? '')}`)
    const head = under ? `<${priority}>` : `${new Date().toISOString()} `
    process.stderr.write(`${head}${[event, ...words].join(' ')}\n`)
  }
  return {
    info: (event, about) => write(6, event, about),
    warn: (event, about) => write(4, event, about),
  }
}

export const SILENT: Log = { info() {}, warn() {} }

function wordOf(value: string | number): string {
  const text = String(value).replace(/\p{Cc}+/gu, ' ')
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)
}
