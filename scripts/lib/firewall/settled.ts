import type { Config } from '../settings/schema.ts'
import { configPath, type Loaded, settled } from '../settled.ts'

/** Reads what the firewalls need of the configuration: nothing secret. @throws Failure 78 */
export async function loadFirewalls(given?: string): Promise<Loaded> {
  const path = configPath(given)
  return await settled(path, 'config', async () => {
    const { loadConfig } = await import('../config.ts')
    const { config, warnings } = loadConfig(path, 'firewalls')
    const { owner, never_ban, min_prefix, state_dir, fail2ban, firewalls } = config
    const kept = { owner, never_ban, min_prefix, state_dir, fail2ban, firewalls }
    return { config: kept as Config, path, warnings }
  })
}
